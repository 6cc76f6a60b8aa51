"""Training a tiny BERT: batches, results, reproducible bits, checkpoints, the hand-written parts, and saved models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from together import QUIET, bert, done, made

from soi_lib.errors import EncoderError, FormatError
from soi_lib.models.encoder import encoder_dir
from soi_lib.models.multitask import Heads, MultiTaskModel
from soi_lib.models.vocabulary import load_trimmed, tokenize
from soi_lib.training import cpu
from soi_lib.training.batching import WINDOW, Encoded, collate, encode, epoch_batches, join
from soi_lib.training.checkpoint import Checkpoint
from soi_lib.training.classifier import load_classifier, save_classifier
from soi_lib.training.engine import TrainConfig, TrainMember, train
from soi_lib.training.optimizer import FlatParameters
from soi_lib.training.outcome import TrainResult

CONFIG = TrainConfig(epochs=3, batch_size=8, learning_rate=3e-3, seed=5)


def one():
    return [made(32, 2, 0)]


def run(config=CONFIG, members=None, **more):
    torch.set_num_threads(1)
    return done(config, members or one(), dropout=0.1, device="cpu", **more)


def bits(result) -> list[bytes]:
    dynamics = [d.p_gold.tobytes() + d.correct.tobytes() for _, d in sorted(result.dynamics.items())]
    weights = [w.numpy().tobytes() for _, w in sorted(result.weights.items())]
    predictions = [p.probabilities.tobytes() for _, s in sorted(result.predictions.items()) for p in s.values()]
    return dynamics + weights + predictions


@pytest.fixture(scope="module")
def first():
    return run()


def test_results_of_a_training(first):
    dyn = first.dynamics["m0"]
    assert dyn.p_gold.shape == (3, 32)
    assert (dyn.meta.record, dyn.meta.label_names, dyn.logits) == ("train", ("m0c0", "m0c1"), None)
    assert dict(dyn.meta.extra) == {}
    assert first.updates == 3 * 4
    assert first.losses[-1] < first.losses[0]
    # the loss and the dynamics come from the same forward pass
    assert np.allclose(-np.log(dyn.p_gold.astype(np.float64)).mean(1), first.losses, atol=1e-5)
    p = first.predictions["m0"]["test"]
    assert np.allclose(p.probabilities.sum(1), 1, atol=1e-5)
    assert np.isclose(p.loss, -np.log(p.probabilities[np.arange(16), p.gold]).mean(), atol=1e-5)


def test_the_seed_decides_the_bits_and_logits_are_kept_on_request(first):
    """runs/test_damage.py shows the same bits from other processes and numbers of workers."""
    assert bits(run(replace(CONFIG, seed=6))) != bits(first)
    kept = run(replace(CONFIG, keep_logits=True))
    assert bits(kept) == bits(first)
    dyn = kept.dynamics["m0"]
    softmax = torch.tensor(dyn.logits).softmax(2).numpy()
    assert np.array_equal(softmax[:, np.arange(32), dyn.gold], dyn.p_gold)


class Killed(Exception):
    """The training was stopped on purpose."""


def kill(epoch: int, n: int) -> None:
    if epoch == 2:
        raise Killed


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A checkpoint that is written after every epoch."""
    monkeypatch.setattr(Checkpoint, "every", 0.0)
    return Checkpoint(tmp_path / "state.safetensors", "x")


def test_both_modes_and_validation_change_nothing_and_survive_a_kill(first, checkpoint):
    def members():
        more = ("validation", "test"), ("train again", "train")
        return [replace(m, splits=m.splits | {name: m.splits[same] for name, same in more}) for m in one()]

    config, seen = replace(CONFIG, record="both"), []
    whole = run(config, members())
    with pytest.raises(Killed):
        run(config, members(), progress=kill, checkpoint=checkpoint)
    resumed = run(config, members(), progress=lambda e, n: seen.append((e, n)), checkpoint=checkpoint)
    assert seen[0] == (1, 64)  # two epochs of 32 examples were not repeated
    assert {e for e, _ in seen[1:]} == {2}
    assert bits(resumed) == bits(whole)
    assert bits(replace(whole, dynamics=whole.dynamics_train, predictions=first.predictions)) == bits(first)
    evaluated = run(replace(CONFIG, record="eval"), members())
    assert bits(whole) == bits(evaluated)
    p, dyn = whole.predictions["m0"]["train again"], whole.dynamics["m0"]
    assert np.allclose(p.probabilities[np.arange(32), p.gold], dyn.p_gold[-1], atol=1e-6)  # of the final weights
    curve = whole.curves["m0"]
    for name, values in curve.items():
        assert np.array_equal(values, resumed.curves["m0"][name]), name
    last = whole.predictions["m0"]["validation"]
    assert (curve["validation_loss"][-1], curve["validation_accuracy"][-1]) == (last.loss, last.accuracy)


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_not_used(checkpoint, caplog):
    path = checkpoint.path
    checkpoint.save({"epoch": torch.tensor(1), "tensor/master": torch.ones(4)})
    assert checkpoint.load()["tensor/master"].tolist() == [1, 1, 1, 1]
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


def test_a_checkpoint_belongs_to_one_precision(checkpoint, caplog):
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


def test_our_attention_and_flat_parameters_change_nothing():
    data = one()[0].splits["train"]
    batch = collate(data, np.arange(8), pad=0)
    encoder = bert()
    model = MultiTaskModel(encoder, Heads(32, [("a", "b")], dropout=0.1, seed=0)).eval()
    with torch.no_grad():
        before = model(batch, batch["member"])
        cpu.make_fast(model)
        after = model(batch, batch["member"])
        FlatParameters(model, torch.device("cpu"), low_precision=False)
        flat = model(batch, batch["member"])
    assert encoder.config._attn_implementation == cpu.ATTENTION
    assert torch.allclose(before, after, atol=1e-5)
    assert torch.equal(after, flat)


def test_dropout_masks_have_the_right_rate_and_repeat():
    cpu.seed_dropout(3)
    first = cpu.keep_mask(torch.Size((1000, 1001)), 0.1)
    cpu.seed_dropout(3)
    assert torch.equal(first, cpu.keep_mask(torch.Size((1000, 1001)), 0.1))
    assert abs(first.float().mean().item() - 0.9) < 0.001
    columns = first.view(-1)[:1000000].view(-1, 4).float().mean(0)  # all four masks in a word have this rate
    assert (columns - 0.9).abs().max() < 0.002
    x = torch.ones(1000, requires_grad=True)
    y = cpu.FastDropout(0.1)(x)
    y.sum().backward()
    assert torch.equal(y.detach(), x.grad)
    assert torch.isin(y, torch.tensor([0.0, 1.0 / 0.9])).all()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_flat_adamw_equals_adamw_per_parameter(decay):
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


def ragged(rng: np.random.Generator, n: int, member: int, segment: bool = False) -> Encoded:
    lengths = rng.integers(3, 40, n)
    total = int(lengths.sum())
    return Encoded(
        token=rng.integers(5, 1000, total),
        segment=rng.integers(0, 2, total) if segment else None,
        offset=np.concatenate([[0], np.cumsum(lengths)]),
        gold=rng.integers(0, 2, n),
        member=np.full(n, member),
    )


@pytest.mark.parametrize(("n", "size"), [(1, 16), (15, 16), (16, 16), (1000, 16), (1001, 7)])
def test_every_example_occurs_once_per_epoch(rng, n, size):
    lengths = rng.integers(3, 60, n)
    batches = epoch_batches(lengths, size, seed=1, epoch=0)
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(n))
    assert len(batches) == -(-n // size)
    assert sorted(len(b) for b in batches)[1:] == [size] * (len(batches) - 1)


def test_datasets_are_mixed_in_proportion_throughout_the_epoch():
    lengths = np.concatenate([np.full(3000, 10), np.full(1000, 50)])  # of two datasets
    orders = [np.concatenate(epoch_batches(lengths, 16, seed=0, epoch=epoch)) for epoch in range(20)]
    shares = (np.array(orders).reshape(20, 4, 1000) >= 3000).mean(2)
    assert abs(shares.mean() - 0.25) < 1e-12
    assert np.abs(shares.mean(0) - 0.25).max() < 0.02  # no quarter of an epoch prefers a dataset
    assert shares.std(0).max() < 0.06


def test_similar_lengths_are_batched_together(rng):
    lengths = rng.integers(5, 100, 16 * WINDOW)
    batches = epoch_batches(lengths, 16, seed=0, epoch=0)
    padded = sum(lengths[b].max() * len(b) for b in batches)
    shuffled = rng.permutation(len(lengths)).reshape(-1, 16)
    assert padded < 1.1 * lengths.sum()
    assert padded < 0.65 * sum(lengths[b].max() * len(b) for b in shuffled)


def test_collate_pads_and_reports_it(rng):
    data = join([ragged(rng, 20, 0), ragged(rng, 10, 1, segment=True)])
    assert len(data) == 30
    index = np.array([25, 3, 0])
    batch = collate(data, index, pad=999)
    width = data.lengths[index].max()
    assert batch["token"].shape == (3, width)
    for row, i in enumerate(index):
        n = data.lengths[i]
        tokens = data.token[data.offset[i] : data.offset[i + 1]]
        assert batch["token"][row, :n].tolist() == tokens.tolist()
        assert (batch["token"][row, n:] == 999).all()
        assert batch["keep"][row].tolist() == [1.0] * n + [0.0] * (width - n)
        expected = data.segment[data.offset[i] : data.offset[i + 1]]
        assert batch["segment"][row, :n].tolist() == expected.tolist()
        assert (batch["segment"][row, n:] == 0).all()
    assert batch["member"].tolist() == [1, 0, 0]
    assert bool(batch["padded"])
    assert not bool(collate(data, index[:1], pad=999)["padded"])


TEXTS = ["the lights are on", "what a sad and very long film that never wanted to end", "fine", "not good at all, no"]
DATASETS = {"films": ("bad", "good"), "rooms": ("dark", "light")}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
ARCHITECTURES = {
    "Bert": SIZES,
    "Roberta": SIZES | {"pad_token_id": 1},
    "XLMRoberta": SIZES | {"pad_token_id": 1},
    "DistilBert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "Electra": SIZES | {"embedding_size": 16},
    "DebertaV2": SIZES | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "ModernBert": SIZES | {"pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102},
}  # fmt: skip


def tiny(kind: str, folder: Path) -> Path:
    """An encoder with random weights and the vocabulary of MiniLM."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(vocab_size=30_522, **ARCHITECTURES[kind])
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((encoder_dir("minilm") / name).read_bytes())
    return folder


def trained(encoder: Path, folder: Path, pooling: str) -> TrainResult:
    """Train and evaluate on the same texts, and save the model in `folder`."""
    torch.set_num_threads(1)
    tokens = tokenize(encoder, TEXTS)
    network, id_map = load_trimmed(encoder, [tokens.ids])
    gold = np.array([0, 1, 0, 1])
    members = []
    for i, (name, labels) in enumerate(DATASETS.items()):
        data = encode(tokens, id_map, gold, member=i)
        members.append(TrainMember(name, labels, np.arange(4), {"train": data, "test": data}))
    config = TrainConfig(epochs=3, batch_size=2, learning_rate=1e-2, pooling=pooling, precision="fp32")
    result = train(network, members, config, device="cpu")
    save_classifier(
        folder,
        result.weights,
        encoder=encoder,
        vocabulary=np.flatnonzero(id_map >= 0),
        datasets=DATASETS,
        pooling=pooling,
        max_length=64,
    )
    return result


@pytest.mark.usefixtures("wheels")
@pytest.mark.parametrize(("kind", "pooling"), [("Bert", "cls"), *((kind, "mean") for kind in ARCHITECTURES)])
def test_the_saved_model_predicts_what_the_training_predicted(kind: str, pooling: str, tmp_path: Path) -> None:
    result = trained(tiny(kind, tmp_path / "encoder"), tmp_path / "model", pooling)
    model = load_classifier(tmp_path / "model", device="cpu")
    for name, labels in DATASETS.items():
        found = model.predict(TEXTS, dataset=name)
        expected = result.predictions[name]["test"].probabilities
        np.testing.assert_allclose(found[list(labels)].to_numpy(), expected, atol=1e-5)
        assert list(found["label"]) == [labels[i] for i in expected.argmax(1)]
        alone = [model.predict([text], dataset=name)["p"][0] for text in TEXTS]
        np.testing.assert_allclose(alone, found["p"], atol=1e-5)
    with pytest.raises(FormatError, match="no such dataset"):
        model.predict(TEXTS, dataset="film")
    with pytest.raises(EncoderError, match="no model here"):
        load_classifier(tmp_path / "encoder")
