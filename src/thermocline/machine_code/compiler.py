"""LLVM's text, compiled by llvmlite.

Only ``llvmlite.binding`` is used, no optimisation pass runs and no JIT engine lives on: what LLVM makes of each
function is bytes, which `executable` maps.
"""

from collections.abc import Sequence

OLDEST_LLVM = 15  # the first to write every pointer as `ptr`
MACHINES = ("aarch64", "x86_64")  # for these it is done beforehand


def compiled(text: str, functions: Sequence[str], triple: str | None = None) -> dict[str, bytes]:
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
    object_file = llvm.ObjectFileRef.from_data(machine.emit_object(llvm.parse_assembly(text)))
    sections = {(section.name() or b"").decode(): bytes(section.data()) for section in object_file.sections()}
    for function in functions:
        assert f".rela.text.{function}" not in sections, f"{function} would have to be linked"
    return {function: sections[f".text.{function}"] for function in functions}


def compiled_for(machine: str, text: str, functions: Sequence[str]) -> dict[str, bytes]:
    """The machine code of each function, for one of `MACHINES`. Raises what `compiled` does."""
    return compiled(text, functions, f"{machine}-unknown-linux-gnu")


def digest(text: str) -> str:
    """What tells whether tables were made from this text."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def tables(text: str, functions: Sequence[str]) -> str:
    """What stands in a module ``plain`` below its mark."""
    import textwrap

    import llvmlite.binding as llvm

    lines = [f"LLVM = {llvm.llvm_version_info}", f'DIGEST = "{digest(text)}"', "MACHINES = {"]
    for machine in MACHINES:
        lines.append(f'    "{machine}": {{')
        for function, code in compiled_for(machine, text, functions).items():
            lines.append(f'        "{function}": """')
            lines.extend(textwrap.wrap(code.hex(" ", 4), 100, initial_indent=" " * 12, subsequent_indent=" " * 12))
            lines.append('        """,')
        lines.append("    },")
    return "\n".join([*lines, "}", ""])
