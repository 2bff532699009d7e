"""What a what-if tries, against what, and that a command does it and says it."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from rewardshape import InputError
from rewardshape.probe.grid import plan_runs
from rewardshape.probe.settings import Settings
from rewardshape.probe.what_if import AS_IT_IS, SHARE_OF_STEPS, base_of, interventions
from rewardshape.trace.folder import RunFolder


def settings(**changes):
    return Settings().replace(checkpoint="model", data="pairs.jsonl", what_if=True, **changes)


def tried(**changes):
    found = interventions(settings(**changes), learning_rate=4e-6)
    return {one.name: (dict(one.changes), one.against) for one in found}


def test_values_are_tried_one_at_a_time_and_drops_against_as_many_at_random():
    found = tried(drop=["ches=0.2", "ties=0.1"], learning_rate=[1e-5, 5e-6], beta=[2, 3, 4])
    assert found == {
        AS_IT_IS: ({}, ""),
        "drop=random=0.2": ({"drop": "random=0.2"}, AS_IT_IS),
        "drop=random=0.1": ({"drop": "random=0.1"}, AS_IT_IS),
        "drop=ches=0.2": ({"drop": "ches=0.2"}, "drop=random=0.2"),
        "drop=ties=0.1": ({"drop": "ties=0.1"}, "drop=random=0.1"),
        "learning_rate=5e-06": ({"learning_rate": 5e-6}, AS_IT_IS),
        "beta=3": ({"beta": 3.0}, AS_IT_IS),
        "beta=4": ({"beta": 4.0}, AS_IT_IS),
    }


def test_a_single_drop_is_an_alternative_too():
    assert set(tried(drop="ties=0.3")) == {AS_IT_IS, "drop=random=0.3", "drop=ties=0.3"}
    assert set(tried(add_nll=[0.1, 1])) == {AS_IT_IS, "add_nll=0.1", "add_nll=1"}


def test_the_usual_ones_are_tried_where_none_is_named():
    found = tried()
    assert found["learning_rate=2e-06"] == ({"learning_rate": 2e-6}, AS_IT_IS)
    against = {name: other for name, (_, other) in found.items() if name.startswith("drop=")}
    assert set(against.values()) == {AS_IT_IS, "drop=random=0.2"}
    assert len(against) == 6
    assert "add_nll=0.1" in found


def test_what_an_objective_has_no_gradients_for_is_not_tried_and_refused_before_the_model_is_loaded(
    checkpoint, pairs_file
):
    for name in ("wpo", "tdpo", "ld_dpo", "sampo"):
        asked = Settings().replace(checkpoint=checkpoint, data=pairs_file, objective=name)
        names = {run.intervention.name for run in plan_runs(asked.replace(what_if=True)).runs}
        assert {one.partition("=")[2] for one in names if one.startswith("drop=")} == {
            "random=0.2", "ties=0.2", "ches=0.2", "similarity=0.2", "length=0.2",
        }  # fmt: skip
        for changes in ({"drop": "influence=0.2"}, {"drop": "influence=0.2", "what_if": True}):
            with pytest.raises(InputError, match=r"--drop influence=0\.2: takes gradients of scores"):
                plan_runs(asked.replace(**changes))


def test_gradients_are_not_weighed_against_a_reference_that_has_moved(checkpoint, pairs_file):
    asked = Settings().replace(checkpoint=checkpoint, data=pairs_file, objective="tr_dpo")
    assert plan_runs(asked.replace(drop="influence=0.2")).names == [""]  # it has not when the run begins
    for name in ("geometry_every", "influence_every"):
        with pytest.raises(InputError, match=r"weighs pairs against the untouched model; .* tr_dpo moves"):
            plan_runs(asked.replace(**{name: 2}))


def test_several_steps_are_refused():
    with pytest.raises(InputError, match="--steps: takes one value with --what-if"):
        tried(steps=[10, 20])


def test_the_base_has_a_third_of_the_steps_and_nothing_dropped():
    base = base_of(settings(drop=["ches=0.2"], beta=[2, 3], steps=100))
    assert base.training.steps == 34 == -(-100 * SHARE_OF_STEPS // 1)
    assert (base.data.drop, base.objective.beta, dict(base.sweep)) == (None, 2.0, {})
    assert not base.training.what_if


def test_every_intervention_has_every_seed_and_a_name_of_its_own(checkpoint, pairs_file):
    asked = Settings().replace(
        checkpoint=checkpoint, data=pairs_file, what_if=True, drop="ties=0.2", seed=[3, 5, 8]
    )
    runs = plan_runs(asked).runs
    assert len({run.name for run in runs}) == len(runs) == 9
    assert sorted({run.settings.training.seed for run in runs}) == [3, 5, 8]
    assert {run.intervention.name for run in runs} == {AS_IT_IS, "drop=random=0.2", "drop=ties=0.2"}


@pytest.fixture
def what_if(probe, made_once, tmp_path):
    flags = ["--what-if", "--drop", "length=0.3", "--steps", "12", "--probe-pairs", "40"]

    def make(folder):
        assert probe(folder / "runs", *flags) == 0

    return shutil.copytree(made_once("what-if", make) / "runs", tmp_path / "runs")


def test_a_command_tries_them_and_leaves_the_table(what_if):
    table = pd.read_csv(RunFolder(what_if).what_if)
    assert dict(table[["intervention", "against"]].drop_duplicates().itertuples(index=False)) == {
        "drop=random=0.3": AS_IT_IS,
        "drop=length=0.3": "drop=random=0.3",
    }
    assert (table["steps"] == 4).all()
    assert (table["num_seeds"] == 2).all()
    assert {"chosen", "accuracy"} <= set(table["measure"])
    told = table[table["difference"].notna()]  # chosen has no number where four steps gained too little
    assert (table["difference"].isna() == table["left_out"].notna()).all()
    assert (told["difference_low"] < told["difference"]).all()
    assert (told["difference"] < told["difference_high"]).all()
    assert (told["margin_gain"].isna() == (told["measure"] != "chosen")).all()
    stated = json.loads((what_if / "drop=length=0.3-seed=1" / "run.json").read_text(encoding="utf-8"))
    assert stated["what_if"] == {
        "name": "drop=length=0.3",
        "changes": {"drop": "length=0.3"},
        "flags": "--drop length=0.3",
        "against": "drop=random=0.3",
        "matched": True,
    }
    assert "--what-if" not in stated["command"]


def test_it_goes_on_after_an_interruption(what_if, probe):
    """A run that is not settled yet is made again, the others are left alone, and the table is the same."""
    from rewardshape.probe.__main__ import main

    before = RunFolder(what_if).what_if.read_text(encoding="utf-8")
    RunFolder(what_if / "drop=random=0.3-seed=0").set_status("interrupted")
    RunFolder(what_if).what_if.unlink()
    assert main(["--resume", "--output", str(what_if), "--quiet"]) == 0
    assert RunFolder(what_if).what_if.read_text(encoding="utf-8") == before
