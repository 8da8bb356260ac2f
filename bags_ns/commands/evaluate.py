"""`bags evaluate`: one run, or all runs below a folder, as JSON and as a table."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from bags_ns.evaluation import Summary, evaluate, num_pictures
from bags_ns.files import write_json
from bags_ns.perceptual import Perceptual
from bags_ns.progress import progress_bar, say
from bags_ns.runs import find_configs, open_run

COLUMNS = {
    "psnr_silhouette": "PSNR in silhouette",
    "iou": "IoU",
    "psnr": "PSNR",
    "psnr_white": "(all white)",
    "ssim": "SSIM",
    "ssim_silhouette": "SSIM in silhouette",
    "lpips": "LPIPS",
    "clip": "CLIP",
    "kid": "KID",
}
"""Metrics of a table and their titles; those that no row has are left out."""


def evaluate_run(path: Path, perceptual: Perceptual | None = None) -> Summary:
    """Measures one run, with a bar."""
    run = open_run(path)
    data = run.pipeline.datamanager
    with progress_bar("Evaluating", num_pictures(data)) as advance:
        return evaluate(run.model, data, lambda: advance(None, None), perceptual)


def evaluate_runs(folder: Path, output: Path | None, perceptual: Perceptual) -> None:
    """Measures a run, or each run below a folder; prints one table and writes `output`.

    Each run's own result is written beside its config. A run that cannot be measured is named, and the others go on.

    Raises:
        ValueError: no run could be measured.
        FileNotFoundError: there is none.
    """
    configs = find_configs(folder)
    if len(configs) == 1:
        summary = evaluate_run(configs[0], perceptual)
        write_json(output or configs[0].parent / "evaluation.json", summary)
        Console().print(summary_table(summary))
    else:
        results: dict[str, Summary] = {}
        for number, config in enumerate(configs, start=1):
            name = str(config.parent.relative_to(folder))
            say(f"{number} of {len(configs)}: {name}")
            try:
                results[name] = evaluate_run(config, perceptual)
            except (ValueError, OSError) as error:
                say(f"left out: {error}")
                continue
            write_json(config.parent / "evaluation.json", results[name])
        if not results:
            raise ValueError(f"none of the {len(configs)} runs below {folder} could be evaluated")
        write_json(output or folder / "evaluations.json", results)
        Console().print(runs_table(results))
    for line in perceptual.missing:
        say(line)


def summary_table(summary: Summary) -> Table:
    """An evaluation as a table: one row a split or bin."""
    return _table("views", summary)


def runs_table(results: dict[str, Summary]) -> Table:
    """Several evaluations as one table: for each split or bin a row for each run."""
    names = dict.fromkeys(name for summary in results.values() for name in summary)
    rows = {f"{name}: {run}": summary[name] for name in names for run, summary in results.items() if name in summary}
    return _table("views: run", rows)


def _table(title: str, rows: dict[str, dict[str, float]]) -> Table:
    table = Table(title="PSNR in dB, pictures on white")
    table.add_column(title, overflow="fold")
    table.add_column("frames", justify="right")
    shown = {key: name for key, name in COLUMNS.items() if any(key in row for row in rows.values())}
    for name in shown.values():
        table.add_column(name, justify="right")
    for name, row in rows.items():
        cells = [f"{row[key]:.3f}" if key in row else "-" for key in shown]
        table.add_row(name, str(int(row["frames"])), *cells)
    return table
