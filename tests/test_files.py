"""The files that a plan names, on their way to a node that lacks them."""

from pathlib import Path

import made_tokenizers as made

from cluster import files
from loadtest import plan as plans
from loadtest import tokens

PLAN = """
name: files
targets:
  - {name: a, url: "http://127.0.0.1:1/v1", dialect: openai-chat, ca_file: /etc/ca.pem, tokenizer: ./theirs}
  - {name: b, url: "http://127.0.0.1:1/v1", dialect: openai-chat}
prompts: {kind: dataset, path: /data/prompts.jsonl}
stages: [{name: s, arrivals: {kind: constant, rate: 1}, requests: 1}]
tokenizer: mine/tokenizer.json
fleet: {listeners: /data/hear.py}
"""


def test_all_that_a_plan_names_travels_and_is_found_where_it_landed(tmp_path: Path) -> None:
    for name in ("mine", "theirs", "node"):
        (tmp_path / name).mkdir()
    mine = made.save(made.byte_level(2000), tmp_path / "mine")
    theirs = made.save(made.byte_level(257), tmp_path / "theirs")
    plan = tokens.located(plans.parse(PLAN, tmp_path))
    named = files.named_by(plan)
    assert sorted(named) == sorted([str(mine), str(theirs), "/etc/ca.pem", "/data/prompts.jsonl", "/data/hear.py"])
    contents = {path: Path(path).read_bytes() if path.endswith("tokenizer.json") else b"" for path in named}
    moved = files.write(contents, tmp_path / "node")
    there = files.relocated(plan, moved)
    paths = files.named_by(there)
    assert len(paths) == len(set(paths)) == 5
    assert all(Path(path).parent == tmp_path / "node" for path in paths)
    assert tokens.Tokenizer(str(there.tokenizer)).count("about the house") == 3
    assert tokens.Tokenizer(str(there.targets[0].tokenizer)).count("about") == 5
    assert there.targets[1].tokenizer is None
