"""`bags evaluate` on a folder of runs: a row a run in one table, a JSON file, and no run that stops the others."""

import json

import pytest
from rich.console import Console
from tiny_runs import run, trainer_on

from bags_ns.commands.evaluate import evaluate_runs, runs_table
from bags_ns.perceptual import Perceptual

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(clip, tmp_path_factory):
    """A short run, a longer one, and one that was never saved."""
    folder = tmp_path_factory.mktemp("runs")
    for name, steps in (("short", 2), ("longer", 40), ("unsaved", 0)):
        trainer = trainer_on(clip, folder / name, steps=40)
        run(trainer, range(steps))
        if steps:
            trainer.save_checkpoint(steps - 1)
    return folder


def test_a_folder_of_runs_becomes_one_table(folder, capsys):
    evaluate_runs(folder, None, Perceptual(missing=["lpips is left out: no weights"]))
    results = json.loads((folder / "evaluations.json").read_text())
    assert len(results) == 2 and all((folder / name / "evaluation.json").is_file() for name in results)
    short, longer = (next(results[name] for name in results if name.startswith(kind)) for kind in ("short", "longer"))
    assert longer["train"]["psnr"] > short["train"]["psnr"]
    assert {"train", "test", "unseen"} <= set(longer) and longer["test"]["psnr_white"] > 0
    assert "lpips" not in longer["train"]
    said = capsys.readouterr().err
    assert "left out" in said and "no checkpoint" in said and "lpips is left out: no weights" in said


def test_the_table_has_a_row_for_each_run_and_split_and_no_column_without_values():
    row = {"frames": 3.0, "psnr": 20.0, "psnr_white": 15.0}
    console = Console(width=200, record=True)
    console.print(runs_table({"one": {"train": row, "test": row}, "two": {"train": {**row, "lpips": 0.25}}}))
    text = console.export_text()
    assert all(name in text for name in ("train: one", "train: two", "test: one", "(all white)", "LPIPS", "0.250"))
    assert "KID" not in text and "test: two" not in text


def test_a_folder_without_a_usable_run_is_an_error(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no trained run"):
        evaluate_runs(tmp_path, None, Perceptual())
