"""The callbacks inside real trainings: progress is step / total before every step of the optimiser."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import equibit as eb
from equibit.errors import StateError
from equibit.methods import Method

SAMPLES, BATCH = 20, 4  # five batches an epoch


class Recording(Method):
    """Keeps the progress of every call."""

    key = "recording"
    needs_advance = True

    def __init__(self):
        super().__init__()
        self.seen = []

    def assign(self, latent):
        return torch.where(latent >= 0, 1.0, -1.0)

    def factors(self, latent, binary):
        return latent.new_ones(len(latent)), None

    def advance(self, progress):
        self.seen.append(progress)


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))
    eb.binarize_(model, Recording(), skip=eb.nothing)
    return model, model[0].parametrizations.weight[0].method.seen


def samples():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SAMPLES, 3, generator=generator), torch.randint(0, 2, (SAMPLES,), generator=generator)


def steps(total, start=0):
    return [step / total for step in range(start, total)]


# total steps: five batches an epoch; the last step of an epoch takes the batches that are left
CASES = {
    "epochs": ({"epochs": 2}, 10),
    "max steps": ({"max_steps": 7}, 7),
    "gradient accumulation": ({"epochs": 2, "accumulate": 2}, 6),
    "max steps and accumulation": ({"max_steps": 4, "accumulate": 3}, 4),
}


@pytest.fixture
def lightning():
    for package in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return __import__(package, fromlist=["Trainer"])
        except ModuleNotFoundError:
            continue
    pytest.skip("Lightning is not installed")


def fit_lightning(lightning, folder, *, automatic=True, resume=None, loader=None, **limits):
    from equibit.integrations.lightning import AdvanceCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = automatic
            self.network, self.seen = network()

        def training_step(self, batch, _index):
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(eb.param_groups(self.network, 1e-4), lr=0.1)

    names = {"epochs": "max_epochs", "max_steps": "max_steps", "accumulate": "accumulate_grad_batches"}
    trainer = lightning.Trainer(
        **{names[key]: value for key, value in limits.items()},
        callbacks=[AdvanceCallback()],
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Module()
    if loader is None:
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*samples()), batch_size=BATCH)
    trainer.fit(module, loader, ckpt_path=resume)
    return trainer, module


# Lightning's own use of torch's pytree.
quiet_lightning = pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning")


@quiet_lightning
@pytest.mark.parametrize("case", CASES)
def test_lightning(lightning, tmp_path, case):
    limits, total = CASES[case]
    trainer, module = fit_lightning(lightning, tmp_path, **limits)
    assert trainer.global_step == total
    assert module.seen == steps(total)


@quiet_lightning
def test_lightning_counts_on_after_a_resume(lightning, tmp_path):
    trainer, _ = fit_lightning(lightning, tmp_path, epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    _, module = fit_lightning(lightning, tmp_path, resume=tmp_path / "one.ckpt", epochs=2)
    assert module.seen == steps(10, start=5)


@quiet_lightning
def test_lightning_refuses_a_fit_whose_steps_are_unknown(lightning, tmp_path):
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from zip(*samples(), strict=True)

    for limits in ({"epochs": -1}, {"epochs": 2, "loader": torch.utils.data.DataLoader(Endless())}):
        with pytest.raises(StateError, match="max_steps"):
            fit_lightning(lightning, tmp_path, **limits)
    with pytest.raises(StateError, match="automatic optimisation"):
        fit_lightning(lightning, tmp_path, epochs=1, automatic=False)


class Classifier(nn.Module):
    """What Transformers' Trainer trains: a model that returns its loss."""

    def __init__(self):
        super().__init__()
        self.network, self.seen = network()

    def forward(self, inputs, labels=None):
        logits = self.network(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def train_transformers(transformers, folder, *, resume=False, **limits):
    from equibit.integrations.transformers import AdvanceCallback

    names = {"epochs": "num_train_epochs", "max_steps": "max_steps", "accumulate": "gradient_accumulation_steps"}
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        **{names[key]: value for key, value in limits.items()},
        per_device_train_batch_size=BATCH,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="steps",
        save_steps=3,
        dataloader_pin_memory=False,
    )
    model = Classifier()
    dataset = [{"inputs": x, "labels": y} for x, y in zip(*samples(), strict=True)]
    trainer = transformers.Trainer(model, arguments, train_dataset=dataset, callbacks=[AdvanceCallback()])
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer, model


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


@pytest.mark.parametrize("case", CASES)
def test_transformers(transformers, tmp_path, case):
    limits, total = CASES[case]
    trainer, model = train_transformers(transformers, tmp_path, **limits)
    assert trainer.state.global_step == total
    assert model.seen == steps(total)


def test_transformers_counts_on_after_a_resume(transformers, tmp_path):
    train_transformers(transformers, tmp_path, epochs=2)
    _, model = train_transformers(transformers, tmp_path, resume=str(tmp_path / "checkpoint-6"), epochs=2)
    assert model.seen == steps(10, start=6)


BLOCKED = """
import sys
sys.modules.update(dict.fromkeys(["lightning", "lightning.pytorch", "pytorch_lightning", "transformers"]))
try:
    import equibit.integrations.{name}
except ImportError as error:
    assert isinstance(error, __import__("equibit").EquibitError)
    print(error)
"""


@pytest.mark.parametrize("name", ["lightning", "transformers"])
def test_a_missing_package_names_the_extra(name):
    done = subprocess.run([sys.executable, "-c", BLOCKED.format(name=name)], capture_output=True, text=True)
    assert f"pip install 'equibit[{name}]'" in done.stdout, done.stderr
