"""Flags with which XLA compiles quickly on CPU: most of a test's time is compiling.

Without LLVM's optimisations it takes half as long, and without XLA's newer way of writing loops, by
MLIR, a quarter of that. What is computed stays the same but for rounding. A program is not split to
be compiled in parallel either: other tests have the other cores.
"""

FLAGS = " ".join(
    (
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    )
)
