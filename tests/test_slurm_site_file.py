"""The site's file: its words reach sbatch, its faults are named."""

from pathlib import Path

import pytest
from manifests import changed, write
from slurm_site import option


def site_yaml(site, text, name="site.yaml"):
    path = site.folder / name
    path.write_text(text)
    return str(path)


def test_the_sites_words_reach_sbatch_and_the_script(site):
    path = site_yaml(site, "partition: gpu\nqos: low\nsetup: [module load cuda]\nextra: ['--nice=3']\n")
    assert site.submit("--site", path) == 0
    for call in site.calls:
        assert (option(call, "partition"), option(call, "qos"), option(call, "nice")) == ("gpu", "low", "3")
    assert (
        "\nmodule load cuda || echo 'warning: this line of setup"
        in (site.submissions[0] / "job.sh").read_text()
    )


def test_the_manifest_wins_over_the_sites_file_word_by_word(site):
    site.manifest = write(site.folder, changed(slurm={"partition": "debug", "requeue": False}))
    path = site_yaml(site, "partition: gpu\nqos: low\nrequeue: true\n")
    assert site.submit("--site", path) == 0
    assert (option(site.calls[0], "partition"), option(site.calls[0], "qos")) == ("debug", "low")
    assert "--no-requeue" in site.calls[0]


def test_the_file_is_the_one_named_or_that_of_the_environment_or_the_usual_one(site, monkeypatch):
    (site.folder / "slurm").mkdir()
    site_yaml(site, "qos: usual", "slurm/site.yaml")
    assert site.submit() == 0
    monkeypatch.setenv("GRID_SITE", site_yaml(site, "qos: environment", "b.yaml"))
    assert site.submit() == 0
    assert site.submit("--site", site_yaml(site, "qos: named", "c.yaml")) == 0
    assert [option(call, "qos") for call in site.calls[::6]] == ["usual", "environment", "named"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("qos: low\npartitoin: gpu\n", ["site.yaml:2", "unknown key 'partitoin'", "partition"]),
        ("max_parallel: 0\n", ["site.yaml:1", "max_parallel"]),
        ("gpu_option: gpus\n", ["site.yaml:1", "gpu_option", "gres"]),
        ("partition: gpu\npartition: cpu\n", ["site.yaml:2", "partition"]),
        ("- partition\n", ["site.yaml"]),
        ("setup: module load cuda\n", ["site.yaml:1", "setup", "list"]),
    ],
)
def test_a_fault_in_the_sites_file_is_named_with_its_line_and_nothing_is_queued(site, capsys, text, words):
    assert site.submit("--site", site_yaml(site, text)) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    assert not site.calls
    assert not site.runs.exists()


def test_a_sites_file_that_is_not_there_is_an_error(site, capsys):
    assert site.submit("--site", str(site.folder / "none.yaml")) == 2
    assert "none.yaml" in (said := capsys.readouterr().err)
    assert "site.example.yaml" in said


def test_the_example_of_a_sites_file_is_a_valid_one(site):
    assert site.submit("--site", str(Path(__file__).parents[1] / "slurm" / "site.example.yaml")) == 0
    assert option(site.calls[0], "account") == "my-project"
