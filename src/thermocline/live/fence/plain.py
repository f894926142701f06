"""The handler, compiled beforehand: what LLVM makes of ``fence.ll``, for machines met every day.

The tests compare the tables with what llvmlite makes.
"""

# --- below this mark: written by `python -m thermocline.machine_code thermocline.live.fence:FENCE` ---
LLVM = (22, 1, 0)
DIGEST = "2015ef4183079da21ae0ccbd700e3033bb35893f8b13000efd827d98ebab8f9a"
MACHINES = {
    "aarch64": {
        "handler": """
            fe0f1df8 f65701a9 360840b9 f44f02a9 f4d5c3d2 f303002a 951640f9 df060071 2b020054
            890240f9 280840f9 1f0109eb a3010054 890640f9 1f0109eb 42010054 810a41a9 40008052
            881240f9 00013fd6 811e40f9 e003132a e2031faa a0023fd6 0a000014 812240f9 e003132a
            e2031faa a0023fd6 df020071 8c000054 881a40f9 e003132a 00013fd6 f44f42a9 f65741a9
            fe0743f8 c0035fd6
        """,
    },
    "x86_64": {
        "handler": """
            554157 41565350 89fb49be 00000000 af1e0000 4d8b7e28 8b6e0885 ed7e2d48 8b461049 3b067224
            493b4608 731e498b 7610498b 5618bf02 00000041 ff562049 8b763889 df31d241 ffd7eb15
            498b7640 89df31d2 41ffd785 ed7f0689 df41ff56 304883c4 085b415e 415f5dc3
        """,
    },
}
