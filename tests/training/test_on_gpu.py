"""Devices, precision and training on a GPU, mostly tested without one: on the meta device, and on the CPU.

Tests marked `cuda` need a GPU; without one they are deselected, and `make test-gpu` runs them.
"""

import os
from collections import Counter
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from together import NOISY, QUIET, bert, both, done, encoded, made
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BloomConfig, BloomModel, GPT2Config, GPT2Model

from soi_lib.errors import EncoderError, SoiError
from soi_lib.models.multitask import Heads, MultiTaskModel
from soi_lib.runs.spec import BYTES_A_PARAMETER
from soi_lib.training import cpu, engine
from soi_lib.training import device as devices
from soi_lib.training.batching import collate
from soi_lib.training.optimizer import FlatParameters


@pytest.fixture
def machine(monkeypatch):
    """Simulate a machine with this many GPUs, GiB of GPU memory and cores."""
    for name in ("ACCELERATE_USE_CPU", "CUDA_VISIBLE_DEVICES", "SOI_DEVICE", "SOI_JOBS"):
        monkeypatch.delenv(name, raising=False)

    def make(gpus: int, memory: int = 80, cores: int = 16) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        found = SimpleNamespace(total_memory=memory * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda card: found)
        monkeypatch.setattr(devices.os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)

    return make


def test_auto_is_a_gpu_if_torch_sees_one(machine, monkeypatch):
    machine(0)
    assert devices.resolve_device() == "cpu"
    assert devices.resolve_device("cuda:1") == "cuda:1"
    machine(2)
    assert (devices.resolve_device("auto"), devices.kind_of("cuda:1")) == ("cuda", "cuda")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert (devices.resolve_device(), devices.resolve_device("cuda")) == ("cpu", "cuda")
    monkeypatch.setenv("SOI_DEVICE", "cuda:1")
    assert (devices.resolve_device(), devices.resolve_device("cpu")) == ("cuda:1", "cpu")


@pytest.mark.parametrize("name", ["cuda:x", "mps"])
def test_an_unknown_name_is_rejected_with_the_choices(machine, name):
    machine(1)
    with pytest.raises(SoiError, match="auto, cpu, cuda, cuda:N"):
        devices.resolve_device(name)


def test_a_missing_gpu_is_reported_with_the_next_step(machine):
    machine(0)
    with pytest.raises(SoiError, match=r"device cuda: .*no GPU.*--device cpu"):
        devices.torch_device("cuda")
    machine(2)
    assert devices.cards("cuda") == (0, 1)
    assert devices.torch_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(SoiError, match=r"device cuda:2: .*2 GPUs"):
        devices.cards("cuda:2")


def test_precision_follows_the_device(machine, monkeypatch):
    machine(1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert (devices.resolve_precision("auto", "cpu"), devices.resolve_precision("auto", "cuda")) == ("bf16", "fp32")
    assert (devices.resolve_precision("fp32", "cpu"), devices.resolve_precision("bf16", "cuda")) == ("fp32", "bf16")
    with pytest.raises(SoiError, match="auto, fp32, bf16"):
        devices.resolve_precision("fp16", "cpu")
    machine(0)
    with pytest.raises(SoiError, match="--precision bf16 or fp32"):
        devices.resolve_precision("auto", "cuda")


def test_the_number_of_parallel_runs(machine, monkeypatch):
    machine(0, cores=6)
    assert devices.default_jobs("cpu") == 6
    machine(1, memory=80)
    assert (devices.default_jobs("cuda"), devices.default_jobs("cpu")) == (4, 16)
    machine(1, memory=16)
    assert devices.default_jobs("cuda") == 2
    machine(4, memory=80, cores=8)
    assert (devices.default_jobs("cuda"), devices.default_jobs("cuda:3")) == (8, 4)
    monkeypatch.setenv("SOI_JOBS", "3")
    assert devices.default_jobs("cuda") == 3


def test_workers_share_the_visible_gpus_evenly(machine, monkeypatch):
    machine(2)
    assert devices.visible_cards("cuda", 3) == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-ab")
    assert devices.visible_cards("cuda", 3) == ["5", "GPU-ab", "5"]
    assert devices.visible_cards("cuda:1", 2) == [None, None]
    assert devices.visible_cards("cpu", 2) == [None, None]


META = torch.device("meta")


class Watch(TorchDispatchMode):
    """While `on`, counts operations and those that move a value between memory and the device."""

    def __init__(self) -> None:
        super().__init__()
        self.on, self.steps, self.operations, self.moved = False, 0, 0, Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if self.on:
            held = [t for t in torch.utils._pytree.tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
            places = {t.device.type for t in held}
            self.operations += "meta" in places
            if len(places) > 1:
                self.moved[str(func)] += 1
        return out


@pytest.fixture
def meta(monkeypatch):
    """Train on the meta device until a first value is read; return the steps done and the watch."""
    monkeypatch.setattr(engine, "_target", lambda name: META)
    monkeypatch.setattr(import_module("torch.optim.adam"), "_device_dtype_check_for_fused", lambda parameter: None)

    def run(config, members):
        watch, steps = Watch(), []
        whole = sum(len(m.ids) for m in members) // config.batch_size

        def progress(epoch: int, n: int) -> None:
            steps.append(n)
            watch.steps += watch.on
            watch.on = len(steps) < whole

        with watch, pytest.raises((NotImplementedError, RuntimeError), match="meta"):
            done(config, members, dropout=0.1, progress=progress)
        return steps, watch

    return run


@pytest.mark.parametrize(
    ("precision", "members"), [("bf16", [made(48, 3, 0)]), ("fp32", both())], ids=["one-bf16", "two-fp32"]
)
def test_nothing_is_read_from_the_device_before_the_end_of_the_epoch(meta, precision, members):
    config = replace(NOISY, precision=precision, batch_size=4, keep_logits=True)
    steps, watch = meta(config, members)
    assert sum(steps) == sum(len(m.ids) for m in members)  # every batch of the epoch, then the first value
    assert watch.moved == {}  # no upload, and no index in memory, in any batch
    assert watch.steps > 5
    assert watch.operations / watch.steps < 380  # one layer, both passes, optimizer, recorder; views count too


def test_the_watch_notices_moved_values():
    watch, buffer = Watch(), torch.zeros(5, device=META)
    watch.on = True
    with watch:
        buffer[torch.tensor([1, 2], device=META)]
        buffer[torch.tensor([1, 2])]
        buffer * torch.tensor(2.0)
        torch.tensor([1.0]).to(META)
    assert sum(watch.moved.values()) == 3


@pytest.mark.parametrize("fast", [False, True], ids=["sdpa", "cpu"])
def test_a_text_gives_the_same_result_padded_and_alone(fast):
    model = MultiTaskModel(bert(), Heads(32, [("a", "b")], dropout=0.1, seed=0)).eval()
    if fast:
        cpu.make_fast(model)
    data = encoded(["w1 w2 w3", "w4 w5 w6 w7 w8 w9 w10 w11"], np.array([0, 1]))
    with torch.no_grad():
        together = collate(data, np.array([0, 1]), pad=0)
        alone = [collate(data, np.array([i]), pad=0) for i in (0, 1)]
        expected = torch.cat([model(batch, batch["member"]) for batch in alone])
        assert bool(together["padded"])
        assert not bool(alone[0]["padded"])
        assert torch.allclose(model(together, together["member"]), expected, atol=1e-5)


DECODERS = {
    "GPT2Model": lambda: GPT2Model(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50)),
    "BertModel": lambda: bert(is_decoder=True),
    # its configuration does not say that its attention is causal
    "BloomModel": lambda: BloomModel(BloomConfig(vocab_size=50, hidden_size=32, n_layer=1, n_head=2)),
}


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_are_rejected_by_name(name):
    with pytest.raises(EncoderError, match=f"{name}: .*decoder"):
        MultiTaskModel(DECODERS[name](), Heads(32, [("a", "b")], dropout=0.1, seed=0))


def test_running_out_of_memory_is_one_line_with_the_remedy(monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(engine._Run, "_record", full)
    with pytest.raises(SoiError, match=r"Tried to allocate 2.00 GiB.*--batch-size.*--jobs") as raised:
        done(QUIET, [made(8, 2, 0)], device="cpu")
    assert "\n" not in str(raised.value)


def test_gradients_of_two_types_are_gathered_in_order():
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(3, 4), "heads": torch.nn.Linear(4, 2)})
    flat = FlatParameters(model, torch.device("cpu"), low_precision=True)
    for i, p in enumerate(model.parameters()):
        p.grad = torch.full_like(p, i + 1)
    gradient = flat.gather_gradients().clone()
    parts = dict(zip(flat.names, gradient.split([int(np.prod(s)) for s in flat.shapes]), strict=True))
    for i, (name, p) in enumerate(model.named_parameters()):
        assert p.dtype == (torch.bfloat16 if name.startswith("encoder.") else torch.float32)
        assert (parts[name] == i + 1).all()


@pytest.mark.parametrize("low_precision", [False, True], ids=["fp32", "bf16"])
def test_the_memory_per_parameter_is_as_estimated(low_precision):
    model = MultiTaskModel(bert(), Heads(32, [("a", "b")], dropout=0.1, seed=0))
    flat = FlatParameters(model, torch.device("cpu"), low_precision=low_precision)
    optimizer = flat.optimizer(lr=1e-3, weight_decay=0.0)
    flat.gather_gradients()
    optimizer.step()
    moments = [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    computing = {p.untyped_storage().data_ptr(): p.untyped_storage() for p in model.parameters()}
    held = [*moments, *(p.grad for p in model.parameters()), flat.gradient, flat.master]
    kept = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in held} | computing
    assert sum(s.nbytes() for s in kept.values()) == BYTES_A_PARAMETER * flat.master.numel()


def test_one_thread_and_deterministic_algorithms_only_inside_the_block(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with devices.reproducibly("cuda:0"):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(2)
    with devices.reproducibly("cpu"):
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loop_never_waits_for_the_gpu(precision):
    def strict(epoch: int, n: int) -> None:
        seen.append(n)
        torch.cuda.set_sync_debug_mode("error" if sum(seen) < 31 else "default")

    seen: list[int] = []
    try:
        done(replace(NOISY, epochs=1, precision=precision), both(), dropout=0.1, progress=strict, device="cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum(seen) == 31


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_twice_gives_the_same_bits_on_a_gpu(precision):
    config = replace(NOISY, precision=precision, record="both")
    with devices.reproducibly("cuda"):
        a, b = (done(config, both(), dropout=0.1, device="cuda") for _ in range(2))
    assert all(torch.equal(w, b.weights[name]) for name, w in a.weights.items())
    for name, dyn in a.dynamics.items():
        assert dyn.fingerprint() == b.dynamics[name].fingerprint()
        assert a.dynamics_train[name].fingerprint() == b.dynamics_train[name].fingerprint()


@pytest.mark.cuda
def test_a_gpu_gives_the_results_of_the_cpu():
    quiet = replace(QUIET, epochs=3)
    a, b = (done(quiet, [made(60, 3, 0)], device=name) for name in ("cpu", "cuda"))
    assert np.allclose(a.losses, b.losses, atol=1e-3)
    assert np.allclose(a.dynamics["m0"].p_gold, b.dynamics["m0"].p_gold, atol=1e-2)
