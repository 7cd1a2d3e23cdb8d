"""What the documents say holds: links lead somewhere, code runs, counted figures are the counts."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from xformer_mobile.cli import bench, doctor, export, predict, train, verify
from xformer_mobile.cli import eval as evaluate
from xformer_mobile.reference import XFormer
from xformer_mobile.spec import ImageSize, ModelConfig
from xformer_mobile.zoo import count_macs, count_parameters

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "tests/golden/README.md"]
COMMANDS: dict[str, click.Command] = {
    "xformer-bench": bench.command,
    "xformer-doctor": doctor.command,
    "xformer-eval": evaluate.command,
    "xformer-export": export.command,
    "xformer-predict": predict.command,
    "xformer-train": train.command,
    "xformer-verify": verify.command,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
    for link in links:
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


def test_the_python_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_that_are_shown(page: Path) -> None:
    for name, options in re.findall(r"^\$? *(xformer-\w+)(.*)$", page.read_text("utf-8"), re.MULTILINE):
        command = COMMANDS[name]
        parts = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
        known = {
            option
            for part in parts
            for parameter in part.params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert set(re.findall(r"--[\w-]+", options)) <= known


def test_counted_figures_of_the_readme() -> None:
    rows = re.findall(
        r"^\| `(\w+)`, (\w+), (\d+) classes, ([\dx]+) \| ([\d.]+) M \| ([\d.]+) G \|",
        (ROOT / "README.md").read_text("utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == 5
    for variant, task, classes, size, parameters, macs in rows:
        model = XFormer(ModelConfig.create(task, variant, num_classes=int(classes), image_size=ImageSize.parse(size)))
        assert f"{count_parameters(model) / 1e6:.3f}" == parameters
        assert f"{count_macs(model) / 1e9:.2f}" == macs
