"""The filter, compiled beforehand: what `native` makes of ``filter.ll``, for machines met every day.

With it nothing has to be installed, imported or compiled to tier NumPy's arrays. The tables below the mark
are written by ``python -m thermocline.numpy_allocator.native``; the tests compare them with what llvmlite
makes.
"""

import os
import sys


def compiled() -> dict[str, bytes] | None:
    """The machine code of each function, or None if there is none for this machine."""
    if sys.byteorder != "little" or sys.maxsize != 2**63 - 1:
        return None
    functions = MACHINES.get(os.uname().machine)
    return {name: bytes.fromhex(code) for name, code in functions.items()} if functions else None


# --- below this mark: written by `python -m thermocline.numpy_allocator.native` ---
LLVM = (22, 1, 0)
FILTER_DIGEST = "c3b2a70954b800d0da95d4c51fa965ccc4b727b8be11bafe96d178e209a559ae"
MACHINES = {
    "aarch64": {
        "malloc": """
            fe0f1ef8 080040f9 f44f01a9 f30300aa f40301aa 3f0008eb 63010054 682640f9 e00313aa
            e1031faa e20314aa 00013fd6 1f0400b1 80000054 f44f41a9 fe0742f8 c0035fd6 600a42a9
            e10314aa f44f41a9 fe0742f8 40001fd6
        """,
        "calloc": """
            287cc29b 680000b4 e0031faa c0035fd6 287c029b 090040f9 1f0109eb 83020054 fe57bea9
            092440f9 f44f01a9 f40301aa e1031faa f50302aa e20308aa f30300aa 20013fd6 e10314aa
            e80300aa e00313aa f44f41a9 e20315aa 1f0500b1 fe57c2a8 60000054 e00308aa c0035fd6
            081040f9 031840f9 e00308aa 60001fd6
        """,
        "realloc": """
            fe57bea9 08a440a9 f44f01a9 f30300aa 2a0008cb 082440f9 5f0109eb 42020054 690e40f9
            890400b4 e00313aa f40301aa 00013fd6 080400d1 1f0d00b1 c8030054 1f0014eb a0030054
            682a40f9 e10314aa f40300aa e00313aa 00013fd6 e00314aa 16000014 690240f9 5f0009eb
            c3020054 e00313aa f40301aa f50302aa 00013fd6 e20315aa e10314aa 1f0400b1 c0010054
            400100b4 681240f9 692240f9 f30300aa 02008092 e00308aa 20013fd6 e00313aa 02000014
            e0031faa f44f41a9 fe57c2a8 c0035fd6 601240f9 631e40f9 f44f41a9 fe57c2a8 60001fd6
        """,
        "free": """
            08a440a9 280008cb 1f0109eb 02010054 080c40f9 a80000b4 fe0f1ff8 082840f9 00013fd6
            fe0741f8 c0035fd6 081040f9 032040f9 e00308aa 60001fd6
        """,
        "ask": """
            ff0301d1 086040f9 fe0b00f9 f65702a9 f50301aa f44f03a9 f30302aa f40300aa 00013fd6
            883640f9 f603002a e0630091 e1230091 e2030091 00013fd6 882e40f9 816a40f9 e00314aa
            827e40f9 e30315aa e40313aa 00013fd6 e80f40f9 e20740a9 893a40f9 f30300aa e00308aa
            20013fd6 886640f9 e003162a 00013fd6 e00313aa f44f43a9 f65742a9 fe0b40f9 ff030191
            c0035fd6
        """,
        "release": """
            ff0301d1 086040f9 fe0b00f9 f65702a9 f50301aa f44f03a9 f30300aa 00013fd6 683640f9
            f403002a e0630091 e1230091 e2030091 00013fd6 684640f9 608640f9 e10315aa 00013fd6
            400200b4 f50300aa 684e40f9 607240f9 e10315aa 00013fd6 685240f9 f603002a e00315aa
            00013fd6 16010035 682e40f9 616e40f9 e00313aa 628240f9 e3031faa e4031faa 00013fd6
            e20740a9 683a40f9 e00f40f9 00013fd6 686640f9 e003142a 00013fd6 f44f43a9 fe0b40f9
            f65742a9 ff030191 c0035fd6
        """,
        "enter": """
            fe67bca9 194040f9 f85f01a9 f70301aa f65702a9 f50303aa f60302aa f44f03a9 f40304aa
            f30300aa e8031f2a e00317aa e10316aa e20315aa e30314aa f803082a 20033fd6 000100b5
            683240f9 e00313aa 00013fd6 28008052 b8fe0736 14008092 09000014 684a40f9 f50300aa
            00013fd6 685240f9 f40300aa e00315aa 00013fd6 98000036 68824aa9 617a40f9 00013fd6
            e00314aa f44f43a9 f65742a9 f85f41a9 fe67c4a8 c0035fd6
        """,
        "collect": """
            ff0301d1 083440f9 f44f03a9 f30300aa e0630091 e1230091 e2030091 fe0b00f9 f65702a9
            00013fd6 683e40f9 e0630091 e1230091 e2030091 00013fd6 765240f9 e00f40f9 c0023fd6
            e00340f9 c0023fd6 685e40f9 00013fd6 688a40f9 f50740f9 e10300aa 694640f9 e00308aa
            e20315aa 20013fd6 f40300aa e00315aa c0023fd6 f40000b4 684e40f9 607640f9 e10314aa
            00013fd6 e00314aa c0023fd6 683a40f9 e0031faa e1031faa e2031faa 00013fd6 f44f43a9
            fe0b40f9 f65742a9 ff030191 c0035fd6
        """,
    },
    "x86_64": {
        "malloc": """
            41 56535048 89f34989 fe483b37 721a4c89 f731f648 89da41ff 56484883 f8ff7408 4883c408
            5b415ec3 498b7e20 498b4628 4889de48 83c4085b 415effe0
        """,
        "calloc": """
            41574156 534889d3 4889f048 f7e27104 31c0eb20 4989fe48 3b07721e 4c89f749 89f731f6
            4889c241 ff56484c 89fe4883 f8ff7406 5b415e41 5fc3498b 7e20498b 46304889 da5b415e
            415fffe0
        """,
        "realloc": """
            41 57415653 4989f648 89fb4889 f0482b47 08483b47 10488b47 48732c48 837b1800 74434889
            df4c89f6 ffd0488d 48014883 f9027231 4c39f074 594889df 4c89f649 89c6ff53 50eb4848
            3b13721d 4889df4c 89f64989 d7ffd04c 89fa4883 f8ff7409 4885c075 1631c0eb 29488b7b
            20488b43 384c89f6 5b415e41 5fffe048 8b7b204c 89f648c7 c2ffffff ff4989c6 ff53404c
            89f05b41 5e415fc3
        """,
        "free": """
            4889f0 482b4708 483b4710 730d4883 7f180074 0550ff57 5058c348 8b472048 8b4f4048 89c7ffe1
        """,
        "ask": """
            554157 41565348 83ec1849 89d64989 f74889fb ff97c000 000089c5 488d7c24 10488d74 24084889
            e2ff5368 488bb3d0 00000048 8b93f800 00004889 df4c89f9 4d89f0ff 53584989 c6488b7c
            2410488b 74240848 8b1424ff 537089ef ff93c800 00004c89 f04883c4 185b415e 415f5dc3
        """,
        "release": """
            55415741 56534883 ec184989 f64889fb ff97c000 000089c5 488d7c24 10488d74 24084889
            e2ff5368 488bbb08 0100004c 89f631c0 ff938800 00004885 c0743d48 8bbbe000 00004889
            c64989c6 ff939800 00004189 c74c89f7 ff93a000 00004585 ff751948 8bb3d800 0000488b
            93000100 004889df 31c94531 c0ff5358 488b7c24 10488b74 2408488b 1424ff53 7089efff
            93c80000 004883c4 185b415e 415f5dc3
        """,
        "enter": """
            554157 41564155 41545350 4c890424 4989cf49 89d44989 f54889fb 4c8bb780 00000031 ed662e0f
            1f840000 00000066 904c89ef 4c89e64c 89fa488b 0c2431c0 41ffd648 85c07518 4889dfff
            536040f6 c50140b5 0174da49 c7c6ffff ffffeb1e 4889c749 89c7ff93 90000000 4989c64c
            89ffff93 a0000000 40f6c501 7414488b bbb00000 00488bb3 f0000000 ff93a800 00004c89
            f04883c4 085b415c 415d415e 415f5dc3
        """,
        "collect": """
            4157 41564154 534883ec 184889fb 4c8d7424 104c8d7c 24084989 e44c89f7 4c89fe4c 89e2ff53
            684c89f7 4c89fe4c 89e2ff53 784c8ba3 a0000000 488b7c24 1041ffd4 488b3c24 41ffd4ff
            93b80000 00488bbb 10010000 4c8b7c24 084889c6 4c89fa31 c0ff9388 00000049 89c64c89
            ff41ffd4 4d85f674 16488bbb e8000000 4c89f6ff 93980000 004c89f7 41ffd431 ff31f631
            d2ff5370 4883c418 5b415c41 5e415fc3
        """,
    },
}
