"""The loop, on the real MiniLM and real tweets, a few batches at a time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from together import QUIET, done, made

from paper.datasets import load
from soi_lib.models.encoder import encoder_dir
from soi_lib.models.multitask import Heads, MultiTaskModel
from soi_lib.models.vocabulary import load_trimmed, special_ids, tokenize, used_tokens
from soi_lib.training import cpu, engine
from soi_lib.training.batching import collate, encode
from soi_lib.training.checkpoint import Checkpoint, State
from soi_lib.training.engine import TrainConfig, TrainMember, train
from soi_lib.training.optimizer import FlatParameters

CONFIG = TrainConfig(epochs=3, batch_size=8, learning_rate=1e-4, seed=5)


def prepared(names: tuple[str, ...], n: int = 32):
    """A fresh encoder and the members' encoded data: n examples to train, 24 to test."""
    torch.set_num_threads(1)
    folder = encoder_dir("minilm")
    corpora = {name: load(name) for name in names}
    splits = {
        name: {"train": c.splits["train"].take(n), "test": c.splits["test"].take(24)} for name, c in corpora.items()
    }
    tokens = {(m, s): tokenize(folder, x.text, x.text_pair) for m, parts in splits.items() for s, x in parts.items()}
    used = used_tokens(*(t.ids for t in tokens.values()), special=special_ids(folder))
    encoder, id_map = load_trimmed(folder, used)
    members = [
        TrainMember(
            name=m,
            labels=corpora[m].labels,
            ids=splits[m]["train"].ids,
            splits={s: encode(tokens[m, s], id_map, x.label, member=i) for s, x in splits[m].items()},
        )
        for i, m in enumerate(names)
    ]
    return encoder, members


def bits(result) -> list[bytes]:
    dynamics = [d.p_gold.tobytes() + d.correct.tobytes() for _, d in sorted(result.dynamics.items())]
    weights = [w.numpy().tobytes() for _, w in sorted(result.weights.items())]
    predictions = [p.probabilities.tobytes() for _, s in sorted(result.predictions.items()) for p in s.values()]
    return dynamics + weights + predictions


@pytest.fixture(scope="module")
def tweets(wheels):
    return train(*prepared(("tweets",)), CONFIG)


def test_what_a_run_leaves(tweets):
    dyn = tweets.dynamics["tweets"]
    assert dyn.p_gold.shape == (3, 32)
    assert dyn.meta.record == "train"
    assert dyn.meta.label_names == load("tweets").labels
    assert tweets.reports["tweets"].missing == ()
    assert tweets.reports["tweets"].repeated == 0
    assert tweets.updates == 3 * 4
    assert len(tweets.losses) == 3
    assert tweets.losses[-1] < tweets.losses[0]
    p = tweets.predictions["tweets"]["test"]
    assert p.probabilities.shape == (24, 2)
    assert np.allclose(p.probabilities.sum(1), 1, atol=1e-5)
    assert np.isclose(p.loss, -np.log(p.probabilities[np.arange(24), p.gold]).mean(), atol=1e-5)


def test_the_recorded_loss_is_the_training_loss(tweets):
    # the mean loss of an epoch is the mean of -log p(gold) in the training forward pass: the same pass was recorded
    recorded = -np.log(tweets.dynamics["tweets"].p_gold.astype(np.float64)).mean(1)
    assert np.allclose(recorded, tweets.losses, atol=1e-5)


def test_same_seed_same_bits_in_another_process(tweets):
    code = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[1]);"
        "from test_engine import *;"
        "print(hashlib.sha256(b''.join(bits(train(*prepared(('tweets',)), CONFIG)))).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code, os.path.dirname(__file__)], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == hashlib.sha256(b"".join(bits(tweets))).hexdigest(), done.stderr[-500:]


def test_logits_are_kept_on_request_and_change_nothing_else(tweets):
    assert tweets.dynamics["tweets"].logits is None
    kept = train(*prepared(("tweets",)), replace(CONFIG, epochs=1, keep_logits=True)).dynamics["tweets"]
    assert kept.logits.shape == (1, 32, 2)
    softmax = torch.tensor(kept.logits).softmax(2).numpy()
    assert np.array_equal(softmax[:, np.arange(32), kept.gold], kept.p_gold)
    assert np.array_equal(kept.logits.argmax(2) == kept.gold, kept.correct)


def test_another_seed_gives_other_dynamics(tweets):
    other = train(*prepared(("tweets",)), replace(CONFIG, seed=6, epochs=1))
    assert not np.array_equal(other.dynamics["tweets"].p_gold[0], tweets.dynamics["tweets"].p_gold[0])


class Killed(Exception):
    """A training was stopped on purpose."""


def kill(epoch: int, n: int) -> None:
    if epoch == 2:
        raise Killed


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """One that is written after every epoch."""
    monkeypatch.setattr(Checkpoint, "every", 0.0)
    return Checkpoint(tmp_path / "state.safetensors", "x")


def test_a_killed_run_continues_to_the_same_bits(tweets, checkpoint):
    with pytest.raises(Killed):
        train(*prepared(("tweets",)), CONFIG, progress=kill, checkpoint=checkpoint)
    seen = []
    resumed = train(*prepared(("tweets",)), CONFIG, progress=lambda e, n: seen.append((e, n)), checkpoint=checkpoint)
    assert seen[0] == (1, 64)  # two epochs of 32 were not done again
    assert {e for e, _ in seen[1:]} == {2}
    assert bits(resumed) == bits(tweets)


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_not_continued(checkpoint, caplog):
    path = checkpoint.path
    checkpoint.save(State(1, {"master": torch.ones(4)}, {"m": {"p": np.ones((1, 2), np.float32)}}))
    assert checkpoint.load().epoch == 1
    assert checkpoint.load().recorders["m"]["p"].shape == (1, 2)
    assert replace(checkpoint, identity="another").load() is None
    assert "another run" in caplog.text
    good = path.read_bytes()
    for damaged in (good[:-3], good[:-3] + b"\0\0\1"):
        path.write_bytes(damaged)
        assert checkpoint.load() is None
        assert f"{path}: the tensors" in caplog.text
        assert not path.exists()
        assert path.with_name(f"{path.name}.damaged").read_bytes() == damaged
    assert checkpoint.load() is None


def test_members_with_different_heads_train_together(wheels):
    result = train(*prepared(("sentiment", "entailment"), n=16), CONFIG)
    assert {m: d.p_gold.shape for m, d in result.dynamics.items()} == {"sentiment": (3, 16), "entailment": (3, 16)}
    assert result.updates == 3 * 4  # 32 examples in batches of 8: the updates an example gets are those it gets alone
    assert result.weights["heads.linear.weight"].shape[0] == 4


def test_recording_in_evaluation_mode(wheels):
    result = train(*prepared(("tweets",)), replace(CONFIG, record="eval", epochs=2))
    dyn = result.dynamics["tweets"]
    assert dyn.meta.record == "eval"
    # the last epoch was recorded with the final weights, so a prediction on the training data reproduces it
    encoder, members = prepared(("tweets",))
    model = MultiTaskModel(encoder, Heads(384, [members[0].labels], dropout=0.1, seed=5))
    model.load_state_dict(result.weights, strict=True)
    cpu.make_fast(model)
    FlatParameters(model, torch.device("cpu"), low_precision=result.precision == "bf16")
    again = engine.predict(model, members[0].splits["train"], slice(0, 2), pad=encoder.config.pad_token_id,
                           device=torch.device("cpu"))  # fmt: skip
    p = again.probabilities[np.arange(32), again.gold]
    assert np.allclose(p, dyn.p_gold[-1], atol=1e-6)


def test_one_run_records_both_modes_to_the_same_bits_as_two(tweets):
    both = train(*prepared(("tweets",)), replace(CONFIG, record="both"))
    evaluated = train(*prepared(("tweets",)), replace(CONFIG, record="eval"))
    assert bits(replace(both, dynamics=both.dynamics_train)) == bits(tweets)
    assert bits(both) == bits(evaluated)
    assert (tweets.dynamics_train, evaluated.dynamics_train) == ({}, {})
    for one in (both, evaluated, tweets):
        assert one.losses == tweets.losses
        assert np.array_equal(one.curves["tweets"].train_loss, tweets.curves["tweets"].train_loss)


def test_following_validation_changes_nothing_and_survives_a_kill(tweets, checkpoint):
    def with_validation():
        encoder, (member,) = prepared(("tweets",))
        return encoder, [replace(member, splits=member.splits | {"validation": member.splits["test"]})]

    config = replace(CONFIG, record="both")
    one = train(*with_validation(), config)
    with pytest.raises(Killed):
        train(*with_validation(), config, progress=kill, checkpoint=checkpoint)
    resumed = train(*with_validation(), config, checkpoint=checkpoint)
    curve = one.curves["tweets"]
    assert bits(replace(one, dynamics=one.dynamics_train, predictions=tweets.predictions)) == bits(tweets)
    for name, values in vars(curve).items():
        assert values.shape == (3,)
        assert np.array_equal(values, getattr(resumed.curves["tweets"], name)), name
    assert bits(resumed) == bits(one)
    last = one.predictions["tweets"]["validation"]
    assert (curve.validation_loss[-1], curve.validation_accuracy[-1]) == (last.loss, last.accuracy)
    assert tweets.curves["tweets"].validation_loss is None


def test_a_checkpoint_is_of_one_kind_of_device_and_precision(checkpoint, caplog):
    members, seen = [made(12, 2, 0)], []
    done(QUIET, members, checkpoint=checkpoint, device="cpu")
    other = replace(QUIET, precision="bf16")
    done(other, members, checkpoint=checkpoint, device="cpu", progress=lambda e, n: seen.append(e))
    assert seen[0] == 0
    assert "another run" in caplog.text


def test_heads_learn_at_their_own_rate():
    members, one = [made(12, 2, 0)], replace(QUIET, epochs=1, batch_size=12, warmup=0.0)
    start = done(replace(one, learning_rate=1e-12), members, device="cpu").weights
    slow, fast = (
        done(replace(one, head_learning_rate_factor=factor), members, device="cpu").weights for factor in (1.0, 10.0)
    )
    for name, value in slow.items():  # one update: the gradients are the same
        step = fast[name] - start[name]
        expected = (value - start[name]) * (10.0 if name.startswith("heads.") else 1.0)
        assert torch.allclose(step, expected, atol=1e-6), name


def test_the_written_out_attention_and_flat_parameters_change_nothing(wheels):
    encoder, members = prepared(("sentiment",), n=8)
    data = members[0].splits["train"]
    batch = collate(data, np.arange(8), pad=encoder.config.pad_token_id)
    model = MultiTaskModel(encoder, Heads(384, [members[0].labels], dropout=0.1, seed=0)).eval()
    with torch.no_grad():
        before = model(batch, batch["member"])
        theirs = encoder(input_ids=batch["token"], attention_mask=batch["keep"].long()).last_hidden_state
        cpu.make_fast(model)
        after = model(batch, batch["member"])
        FlatParameters(model, torch.device("cpu"), low_precision=False)
        flat = model(batch, batch["member"])
        states = model.encoder(input_ids=batch["token"], attention_mask=batch["keep"].long()).last_hidden_state
    assert encoder.config._attn_implementation == cpu.ATTENTION
    assert torch.allclose(before, after, atol=1e-5)
    assert torch.equal(after, flat)
    real = batch["keep"].bool()
    assert torch.allclose(theirs[real], states[real], atol=1e-5)


def test_dropout_masks_have_the_right_rate_and_repeat():
    cpu.seed_dropout(3)
    first = cpu.keep_mask(torch.Size((1000, 1001)), 0.1)
    cpu.seed_dropout(3)
    assert torch.equal(first, cpu.keep_mask(torch.Size((1000, 1001)), 0.1))
    assert abs(first.float().mean().item() - 0.9) < 0.001
    columns = first.view(-1)[:1000000].view(-1, 4).float().mean(0)  # the four masks of a word are equally good
    assert (columns - 0.9).abs().max() < 0.002
    x = torch.ones(1000, requires_grad=True)
    y = cpu.FastDropout(0.1)(x)
    y.sum().backward()
    assert torch.equal(y.detach(), x.grad)
    assert torch.isin(y, torch.tensor([0.0, 1.0 / 0.9])).all()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_flat_adamw_equals_adamw_a_parameter(decay):
    torch.manual_seed(0)

    class Toy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.LayerNorm(8))
            self.heads = torch.nn.Linear(8, 3)

    a, b = Toy(), Toy()
    b.load_state_dict(a.state_dict())
    x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))
    groups = [
        {"params": [p for p in a.parameters() if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in a.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    plain = torch.optim.AdamW(groups, lr=0.01)
    flat = FlatParameters(b, torch.device("cpu"), low_precision=False)
    fused = flat.optimizer(lr=0.01, weight_decay=decay)
    for _ in range(20):
        plain.zero_grad()
        torch.nn.functional.cross_entropy(a.heads(a.encoder(x)), y).backward()
        torch.nn.utils.clip_grad_norm_(a.parameters(), 0.05)
        plain.step()
        torch.nn.functional.cross_entropy(b.heads(b.encoder(x)), y).backward()
        flat.gather_gradients()
        flat.clip(0.05)
        fused.step()
        flat.sync_low_precision()
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6), name
    assert set(flat.named_master()) == {name for name, _ in a.named_parameters()}
