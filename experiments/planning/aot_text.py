"""The report of `experiments.aot_compile` as text, to be read from top to bottom."""

from typing import Any

GIB = 2**30


def render(report: dict[str, Any]) -> str:
    """Memory, work, collectives, time; one blank line between."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in report["mesh"].items() if size > 1)
    slices = f", {report['num_slices']} slices" if report["num_slices"] > 1 else ""
    batches = ", ".join(
        f"{name} {b['sequences']} x {b['tokens']}" for name, b in report["batches"].items()
    )
    if report["microbatches"] > 1:
        batches += f", in {report['microbatches']} parts"
    hbm, seconds = report["hbm"], report["seconds"]
    lines = [
        f"{report['topology']}{slices}: {report['num_chips']} chips, mesh {mesh or 'of one'}",
        f"batches {batches}",
        f"lowered in {_took(report['lower_s'])}, compiled in {_took(report['compile_s'])}"
        + (f" with effort {report['effort']:g}" if report["effort"] else ""),
        "",
        f"HBM a chip    {hbm['peak'] / GIB:8.2f} GiB of {hbm['capacity'] / GIB:.0f}, "
        f"{hbm['spare']:.0%} to spare" + ("" if hbm["spare"] >= 0 else ": does not fit"),
        f"  arguments   {hbm['arguments'] / GIB:8.2f} GiB",
        f"  temporaries {hbm['temporaries'] / GIB:8.2f} GiB",
        "",
        f"model         {report['model_flops'] / 1e15:8.2f} PFLOP a step, all chips",
        f"executed      {report['executed_flops_per_chip'] / 1e12:8.2f} TFLOP a chip, "
        f"{report['executed_flops_per_chip'] * report['num_chips'] / report['model_flops']:.2f} "
        "times the model's",
        f"HBM traffic   {report['hbm_bytes_per_chip'] / 1e9:8.1f} GB a chip",
        f"collectives   {report['collective_bytes_per_chip'] / 1e9:8.2f} GB sent a chip",
    ]
    for c in report["collectives"]:
        sent = c["bytes"] + c["slice_bytes"]
        lines.append(
            f"  {c['kind']:<19} {' x '.join(c['axes']) or '-':<22} {c['times']:7.0f} times "
            f"{sent / 1e9:9.3f} GB {1e3 * c['seconds']:9.2f} ms"
        )
    lines += [
        "",
        f"computing     {1e3 * seconds['computing']:8.1f} ms",
        f"HBM           {1e3 * seconds['hbm']:8.1f} ms",
        f"networks      {1e3 * seconds['network']:8.1f} ms",
        f"step          {1e3 * seconds['step']:8.1f} ms if all overlap, bound by "
        f"{report['bound']}: MFU {report['mfu']:.1%}",
        f"              {1e3 * seconds['step_without_overlap']:8.1f} ms if nothing does: "
        f"MFU {report['mfu_without_overlap']:.1%}",
    ]
    return "\n".join(lines)


def _took(seconds: dict[str, float]) -> str:
    return f"{seconds['wall']:.0f} s ({seconds['processor']:.0f} s of processor)"
