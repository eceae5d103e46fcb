"""The report of all studies: one file, every claim, and what went wrong said in it."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from studies.lab.claims import CLAIMS, Claim, Criterion
from studies.reproduce_paper import study as reproduce_paper
from studies.reproduce_paper.page import Part, page, verdict_of
from studies.reproduce_paper.study import Config, main, verdicts

ABOVE = Criterion("a number <of> each replica", "chance gives 0 & less", least=0.5)
HELD, BROKEN = ABOVE.held_to([0.9, 1.0, 1.1]), ABOVE.held_to([-0.1, 0.0, 0.1])
CONTROL = Criterion("the same, shuffled", "must not be", least=0.5, is_control=True).held_to([-0.1, 0.0, 0.1])


class Reader(HTMLParser):
    """Collects text, sources and whether every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def parts(tmp_path):
    Figure(figsize=(1, 1)).savefig(tmp_path / "picture.png")
    good = Claim(9, (HELD, CONTROL), "picture.png", "digits")
    bad = Claim(6, (BROKEN,), "nowhere.png", "digits", note="t_m > t_f")
    return [Part("one", tmp_path, [good, bad], 61.0), Part("other", tmp_path, [], 1.0, "no <files>")]


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_the_page_has_every_claim_and_needs_no_other_file(parts):
    reader = read(page(parts, about={"command": "make paper"}, deviations=["pixels <lie> in [0, 1]"]))
    text = " ".join(reader.text)
    for number, (statement, figure) in CLAIMS.items():
        assert f"Claim {number}:" in text
        assert statement in text
        assert figure in text
    assert all(link.startswith(("#claim-", "data:image/png;base64,", "https://doi.org/")) for link in reader.links)
    assert "no <files>" in text
    assert "pixels <lie> in [0, 1]" in text
    assert "a number <of> each replica" in text
    assert "nowhere.png is missing" in text
    assert (
        "1 reproduced, 0 partly reproduced, 1 not reproduced, 0 undecided, too few replicas to say, 0 too short to say, 12"
        in text
    )
    assert "make paper" in text


def test_the_page_says_what_was_asked_and_what_came(parts):
    text = " ".join(read(page(parts, about={}, deviations=[])).text)
    assert "at least 0.5" in text
    assert f"{HELD.estimate:.3g} ({HELD.lower:.3g} to {HELD.upper:.3g})" in text
    assert "control, must not hold" in text


def test_studies_that_disagree_make_a_claim_partly_reproduced():
    good, bad = Claim(4, (HELD,), "", ""), Claim(4, (BROKEN,), "", "")
    assert verdict_of([]) == "not measured"
    assert verdict_of([good, good]) == "reproduced"
    assert verdict_of([good, bad]) == "partly"
    assert verdict_of([bad]) == "not"
    short, few = Claim(4, (), "", "", too_short="II"), Claim(4, (ABOVE.held_to([0.0, 1.0]),), "", "")
    for others, expected in (
        ([short], "too short"),
        ([few], "undecided"),
        ([short, few], "too short"),
        ([good, short], "partly"),
        ([bad, few], "not"),
        ([good, Claim(4, (), "", "")], "reproduced"),
    ):
        assert verdict_of(others) == expected


def test_verdicts_are_said_line_by_line(parts):
    lines = verdicts(parts).splitlines()
    assert len(lines) == len(CLAIMS) == 14
    assert "reproduced" in lines[8]
    assert "not reproduced" in lines[5]
    assert "not measured" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--studies", "phases"], "two_phases"),
        (["--studies", "cleaning", "cleaning"], "each of them once"),
        (["--replicas", "1"], "at least 2"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(arguments, said, refused):
    assert said in refused(main, arguments)


@pytest.mark.proof
def test_a_study_that_fails_does_not_stop_the_others(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LANGEVIN_NN_DATA", raising=False)
    blocked = tmp_path / "label_noise_sweep"
    blocked.write_text("a file where a folder should be")
    arguments = ["--studies", "label_noise_sweep", "two_phases", "--quick", "--out", str(tmp_path)]
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert "no result from label_noise_sweep" in output.err
    assert "[1 of 2] label_noise_sweep\nlabel_noise_sweep: " in output.out
    text = " ".join(read((tmp_path / "report.html").read_text()).text)
    assert "cannot be written" in text
    blocked.unlink()
    assert main([*arguments, "--resume"]) == 0
    found = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("label_noise_sweep", "two_phases")]
    assert [each["study"] for each in found] == ["label_noise_sweep", "two_phases"]
    before = (tmp_path / "two_phases" / "summary.json").stat().st_mtime_ns
    assert main([*arguments, "--resume"]) == 0
    assert (tmp_path / "two_phases" / "summary.json").stat().st_mtime_ns == before, "what is done is not run again"


def test_files_that_are_not_at_hand_leave_a_study_out(monkeypatch, capsys):
    monkeypatch.delenv("LANGEVIN_NN_DATA", raising=False)
    assert "label_noise_phases_cifar10" not in reproduce_paper._planned(Config())
    assert "--data-dir" in capsys.readouterr().out
    assert "label_noise_phases_cifar10" in reproduce_paper._planned(Config(data_dir="somewhere"))
