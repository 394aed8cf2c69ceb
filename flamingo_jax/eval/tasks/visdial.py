"""VisDial 1.0: the next answer of a dialogue, among 100 options.

    visdial/visdial_1.0_{train,val}.json    visdial/visdial_1.0_val_dense_annotations.json
    visdial/VisualDialog_val2018/*.jpg      coco/train2014/*.jpg  coco/val2014/*.jpg

Paper: section 3; NDCG on val, options ranked by likelihood. The picture's caption comes first, then
a question and an answer for each round before:

    <image>a cat on a mat Question: is it grey Answer: yes Question: is it asleep Answer:

A support example is a whole dialogue of ten rounds, which the paper's count of tokens implies. What
stands between rounds is not stated: here a space. Questions are as in the file, without a mark.
What is trained on has each round of a dialogue, asked as a query is.
"""

import pathlib
from collections.abc import Iterator, Sequence

from flamingo_jax.eval.prompt_template import PromptTemplate
from flamingo_jax.eval.task import Example, Task, TaskError
from flamingo_jax.eval.tasks import files
from flamingo_jax.eval.tasks.coco_questions import picture
from flamingo_jax.eval.tasks.karpathy import COCO_IMAGES
from flamingo_jax.prompts import ImagePart

TEMPLATE = PromptTemplate("{history} Question: {question} Answer: {answer}")
_SOURCE = "https://visualdialog.org/data"


def visdial(data_dir: pathlib.Path, caption_template: str) -> Task:
    """VisDial."""
    folder = data_dir / "visdial"
    dense_path = folder / "visdial_1.0_val_dense_annotations.json"
    dense = {
        files.field(record, "image_id", str(dense_path)): record
        for record in files.read_json(dense_path, _SOURCE)
    }
    val, train = (_Dialogues(folder / f"visdial_1.0_{split}.json") for split in ("val", "train"))
    pictures = files.folder(folder / "VisualDialog_val2018", _SOURCE)
    queries = []
    for dialogue in val.dialogues:
        number = dialogue["image_id"]
        if number in dense:
            media = ImagePart(pictures / f"VisualDialog_val2018_{number:012d}.jpg")
            queries.append(val.query(dialogue, media, dense[number], str(dense_path)))
    coco = files.folder(data_dir / "coco" / "train2014", COCO_IMAGES)
    in_train = {int(path.stem[-12:]) for path in coco.glob("COCO_train2014_*.jpg")}
    support = []
    for dialogue in train.dialogues:
        number = dialogue["image_id"]
        split = "train2014" if number in in_train else "val2014"
        support.append(train.whole(dialogue, picture(data_dir, split, number)))
    return Task(
        name="visdial",
        split="val, rounds with dense annotations",
        template=TEMPLATE,
        metric="ndcg",
        queries=queries,
        support=support,
        training=lambda: (
            example
            for dialogue, shown in zip(train.dialogues, support, strict=True)
            for example in train.rounds(dialogue, shown.media)
        ),
    )


class _Dialogues:
    """A file of dialogues, whose questions and answers are numbers of two lists."""

    def __init__(self, path: pathlib.Path):
        self._path = path
        data = files.field(files.read_json(path, _SOURCE), "data", str(path))
        self._questions = files.field(data, "questions", str(path))
        self._answers = files.field(data, "answers", str(path))
        self.dialogues: Sequence[dict] = files.field(data, "dialogs", str(path))

    def whole(self, dialogue: dict, media: ImagePart) -> Example:
        """All of it, the last answer being the example's."""
        fields, last = self._fields(dialogue, len(dialogue["dialog"]))
        answer = self._answers[last["answer"]]
        return Example(str(dialogue["image_id"]), media, answer, (answer,), fields)

    def rounds(self, dialogue: dict, media: ImagePart) -> Iterator[Example]:
        """Each round after those before it."""
        for number in range(1, len(dialogue["dialog"]) + 1):
            fields, last = self._fields(dialogue, number)
            answer = self._answers[last["answer"]]
            yield Example(f"{dialogue['image_id']}_{number}", media, answer, (answer,), fields)

    def query(self, dialogue: dict, media: ImagePart, dense: dict, where: str) -> Example:
        """Up to the round that people rated the options of."""
        number = files.field(dense, "round_id", where)
        fields, last = self._fields(dialogue, number)
        options = tuple(self._answers[option] for option in last["answer_options"])
        relevance = tuple(map(float, files.field(dense, "gt_relevance", where)))
        name = f"{dialogue['image_id']}_{number}"
        if len(relevance) != len(options):
            raise TaskError(f"{where}: {name} rates {len(relevance)} of {len(options)} options")
        answer = options[last["gt_index"]]
        return Example(name, media, answer, (answer,), fields, options, relevance)

    def _fields(self, dialogue: dict, number: int) -> tuple[dict[str, str], dict]:
        """The template's fields of round `number`, from 1, and the round."""
        *before, last = dialogue["dialog"][:number]
        history = [dialogue["caption"].strip()]
        for turn in before:
            question, answer = self._questions[turn["question"]], self._answers[turn["answer"]]
            history.append(f"Question: {question} Answer: {answer}")
        return {"history": " ".join(history), "question": self._questions[last["question"]]}, last
