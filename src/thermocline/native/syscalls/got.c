/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts the wrappers into a process that runs already: where loaded objects have the addresses of the
 * wrapped functions (their global offset tables), they get those of the wrappers.
 *
 * An entry is a word that the dynamic linker wrote, from a relocation that names the function. It is
 * replaced only if it still leads where the linker would lead it: to the function, or, as long as it was
 * never called, into the object's own stub. So an entry that somebody else has redirected stays as it is.
 * A store of one word is whole for other threads. What is loaded later, needs another run.
 *
 * What is not reached: addresses that dlsym(3) returned, or that were copied.
 */
#include "syscalls.h"

#include <elf.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>

TC_EXPORT int tc_syscalls_redirect(void);

#if defined(__x86_64__)
#define JUMP_SLOT R_X86_64_JUMP_SLOT
#define GLOB_DAT R_X86_64_GLOB_DAT
#define WORD R_X86_64_64
#elif defined(__aarch64__)
#define JUMP_SLOT R_AARCH64_JUMP_SLOT
#define GLOB_DAT R_AARCH64_GLOB_DAT
#define WORD R_AARCH64_ABS64
#endif

#ifdef JUMP_SLOT

#define TC_DECLARE(name) extern void tc_own_##name(void) __attribute__((visibility("hidden")));
TC_NAMES(TC_DECLARE)
#undef TC_DECLARE

static const struct {
	const char *name;
	void (*wrapper)(void);
	void *real; /* where its address is */
} functions[] = {
#define TC_FUNCTION(name) { #name, tc_own_##name, &tc_real.name },
	TC_NAMES(TC_FUNCTION)
#undef TC_FUNCTION
};

/* A loaded object. */
struct object {
	uintptr_t base, begin, end;           /* what it is mapped at */
	uintptr_t relro_begin, relro_end;     /* what the linker made read-only when it had relocated it */
	const ElfW(Sym) *symbols;
	const char *strings;
	const ElfW(Rela) *relocations[2];     /* DT_RELA, DT_JMPREL */
	size_t sizes[2];                      /* bytes */
	bool writable;
	int failed;
};

/* Some linkers relocate the pointers of the dynamic section, some do not (musl, the vdso). */
static const void *pointer(const struct object *object, ElfW(Addr) value)
{
	return (const void *)(value < object->base ? value + object->base : value);
}

static bool describe(struct object *object, const struct dl_phdr_info *info)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin, end;
	const ElfW(Dyn) *dynamic = NULL;
	const ElfW(Phdr) *header;
	int index;

	memset(object, 0, sizeof(*object));
	object->base = info->dlpi_addr;
	object->begin = UINTPTR_MAX;
	for (index = 0; index < info->dlpi_phnum; index++) {
		header = &info->dlpi_phdr[index];
		begin = object->base + header->p_vaddr;
		end = begin + header->p_memsz;
		switch (header->p_type) {
		case PT_LOAD:
			object->begin = begin < object->begin ? begin : object->begin;
			object->end = end > object->end ? end : object->end;
			break;
		case PT_DYNAMIC:
			dynamic = (const ElfW(Dyn) *)begin;
			break;
		case PT_GNU_RELRO: /* as the linker rounds it (_dl_protect_relro) */
			object->relro_begin = begin & ~(page - 1);
			object->relro_end = end & ~(page - 1);
			break;
		}
	}
	for (; dynamic && dynamic->d_tag != DT_NULL; dynamic++) {
		switch (dynamic->d_tag) {
		case DT_SYMTAB:
			object->symbols = pointer(object, dynamic->d_un.d_ptr);
			break;
		case DT_STRTAB:
			object->strings = pointer(object, dynamic->d_un.d_ptr);
			break;
		case DT_RELA:
			object->relocations[0] = pointer(object, dynamic->d_un.d_ptr);
			break;
		case DT_RELASZ:
			object->sizes[0] = dynamic->d_un.d_val;
			break;
		case DT_JMPREL:
			object->relocations[1] = pointer(object, dynamic->d_un.d_ptr);
			break;
		case DT_PLTRELSZ:
			object->sizes[1] = dynamic->d_un.d_val;
			break;
		}
	}
	return object->symbols && object->strings;
}

static bool within(uintptr_t address, uintptr_t begin, uintptr_t end)
{
	return begin <= address && address < end;
}

static void store(struct object *object, uintptr_t *slot, uintptr_t value)
{
	if (within((uintptr_t)slot, object->relro_begin, object->relro_end) && !object->writable) {
		if (mprotect((void *)object->relro_begin, object->relro_end - object->relro_begin,
			     PROT_READ | PROT_WRITE)) {
			object->failed = 1;
			return;
		}
		object->writable = true;
	}
	__atomic_store_n(slot, value, __ATOMIC_RELEASE);
}

static void redirect(struct object *object, const ElfW(Rela) *relocation)
{
	unsigned long type = ELF64_R_TYPE(relocation->r_info);
	const ElfW(Sym) *symbol = &object->symbols[ELF64_R_SYM(relocation->r_info)];
	const char *name = object->strings + symbol->st_name;
	uintptr_t *slot = (uintptr_t *)(object->base + relocation->r_offset), real, now;
	size_t index;

	if ((type != JUMP_SLOT && type != GLOB_DAT && type != WORD) || symbol->st_shndx != SHN_UNDEF ||
	    relocation->r_addend || (uintptr_t)slot % sizeof(*slot))
		return;
	for (index = 0; index < sizeof(functions) / sizeof(*functions); index++) {
		if (strcmp(functions[index].name, name))
			continue;
		memcpy(&real, functions[index].real, sizeof(real));
		now = __atomic_load_n(slot, __ATOMIC_RELAXED);
		if (now == real || (type == JUMP_SLOT && within(now, object->begin, object->end)))
			store(object, slot, (uintptr_t)functions[index].wrapper);
		return;
	}
}

static int redirect_all(struct dl_phdr_info *info, size_t size, void *failed)
{
	struct object object;
	size_t table, index;

	(void)size;
	if (!describe(&object, info) ||
	    within((uintptr_t)redirect_all, object.begin, object.end)) /* this library */
		return 0;
	for (table = 0; table < 2; table++)
		for (index = 0; index < object.sizes[table] / sizeof(ElfW(Rela)); index++)
			if (object.relocations[table])
				redirect(&object, &object.relocations[table][index]);
	if (object.writable)
		mprotect((void *)object.relro_begin, object.relro_end - object.relro_begin, PROT_READ);
	*(int *)failed |= object.failed;
	return 0;
}

/* Redirect all that is loaded -> 0, or -1 where that is not possible. Not from a constructor or signal handler. */
int tc_syscalls_redirect(void)
{
	int failed = 0;

	tc_find_default();
	dl_iterate_phdr(redirect_all, &failed); /* under the linker's lock: nothing is unloaded meanwhile */
	return failed ? -1 : 0;
}

#else

int tc_syscalls_redirect(void)
{
	return -1;
}

#endif
