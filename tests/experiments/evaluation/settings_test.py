"""How predictions were made, as it is written beside them: a damaged file is named in one line."""

import pytest

from experiments.cli import UserError
from experiments.evaluation import settings
from flamingo_jax.eval.prompt_template import PromptTemplate
from flamingo_jax.eval.task import Task

TASK = Task("pets", "query", PromptTemplate("A picture of {answer}"), "cider", [], [])


@pytest.mark.parametrize(
    "said", [b"{", b"[]", b'"x"', b"3", b"\xff", b'{"tasks": []}', b'{"tasks": {"pets": [1]}}']
)
def test_a_file_that_holds_no_settings_is_named(tmp_path, said):
    (tmp_path / "pets_0.jsonl").write_text("{}\n")
    (tmp_path / "settings.json").write_bytes(said)
    with pytest.raises(UserError, match=r"settings\.json is damaged: give another --out"):
        settings.check(tmp_path, {"card_sha256": "1"}, settings.Settings(), TASK, [0])


def test_what_was_written_is_believed_and_another_model_refused(tmp_path):
    (tmp_path / "pets_0.jsonl").write_text("{}\n")
    for _ in range(2):
        settings.check(tmp_path, {"card_sha256": "1"}, settings.Settings(), TASK, [0])
    with pytest.raises(UserError, match="holds predictions with card_sha256='1', asked for is '2'"):
        settings.check(tmp_path, {"card_sha256": "2"}, settings.Settings(), TASK, [0])
