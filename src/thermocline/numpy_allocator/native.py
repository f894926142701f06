"""The filter, compiled from ``filter.ll`` by llvmlite.

Only ``llvmlite.binding`` is used, no optimisation pass runs and no JIT engine lives on: what LLVM makes of
each function is bytes, which `executable` loads. ``python -m thermocline.numpy_allocator.native`` writes
`plain`'s tables.
"""

from pathlib import Path

from thermocline.numpy_allocator.executable import FUNCTIONS

OLDEST_LLVM = 15  # the first to write every pointer as `ptr`


def filter_source() -> str:
    """The text of ``filter.ll``."""
    return Path(__file__).with_name("filter.ll").read_text(encoding="utf-8")


def source_digest() -> str:
    """What tells whether `plain` was made from this ``filter.ll``."""
    import hashlib

    return hashlib.sha256(filter_source().encode()).hexdigest()


def compiled(triple: str | None = None) -> dict[str, bytes]:
    """The machine code of each function, for this machine or for an LLVM target triple.

    Raises
    ------
    ImportError
        llvmlite is missing, does not load or is older than 0.44.
    """
    try:
        import llvmlite.binding as llvm
    except OSError as error:  # its shared library does not load
        raise ImportError(str(error)) from error
    if llvm.llvm_version_info[0] < OLDEST_LLVM:
        raise ImportError("llvmlite is older than 0.44")

    if triple is None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    # No `cpu` is named: the code is for the oldest of the architecture, so any machine can compile it for
    # another.
    target = llvm.Target.from_triple(triple or llvm.get_process_triple())
    machine = target.create_target_machine(opt=2, reloc="pic")
    object_file = llvm.ObjectFileRef.from_data(machine.emit_object(llvm.parse_assembly(filter_source())))
    sections = {(section.name() or b"").decode(): bytes(section.data()) for section in object_file.sections()}
    for function in FUNCTIONS:
        assert f".rela.text.{function}" not in sections, f"{function} would have to be linked"
    return {function: sections[f".text.{function}"] for function in FUNCTIONS}


def tables() -> str:
    """What stands in `plain` below its mark."""
    import textwrap

    import llvmlite.binding as llvm

    lines = [f"LLVM = {llvm.llvm_version_info}", f'FILTER_DIGEST = "{source_digest()}"', "MACHINES = {"]
    for machine in ("aarch64", "x86_64"):
        lines.append(f'    "{machine}": {{')
        for function, code in compiled(f"{machine}-unknown-linux-gnu").items():
            lines.append(f'        "{function}": """')
            lines.extend(textwrap.wrap(code.hex(" ", 4), 100, initial_indent=" " * 12, subsequent_indent=" " * 12))
            lines.append('        """,')
        lines.append("    },")
    return "\n".join([*lines, "}", ""])


if __name__ == "__main__":
    print(tables(), end="")
