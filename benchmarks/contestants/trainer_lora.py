"""transformers' Trainer with peft's LoRA: what one writes today without either library, as their documentation says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

DISTRIBUTIONS = ("transformers", "peft", "torch")
BATCH = 32

datasets.disable_progress_bars()


class TrainerLora:
    """LoRA r=8 alpha=8 without dropout on query and value, a fifth held out, the better epoch kept."""

    def __init__(self, checkpoint: str, bf16: bool):
        self._checkpoint, self._bf16 = checkpoint, bf16
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self._collator = DataCollatorWithPadding(self._tokenizer)

    def fit(self, train: pd.DataFrame, seed: int, folder: Path) -> None:
        """Trains and saves the adapters; the pooler and the classifier are new in this checkpoint and train whole."""
        set_seed(seed)
        lora = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=8,
            lora_alpha=8,
            lora_dropout=0.0,
            target_modules=["query", "value"],
            modules_to_save=["pooler", "classifier"],
        )
        kept, held_out = train_test_split(train, test_size=0.2, stratify=train["label"], random_state=seed)
        work = folder.with_name(f"{folder.name}-work")
        arguments = self._arguments(
            work,
            num_train_epochs=2,
            per_device_train_batch_size=BATCH,
            learning_rate=3e-3,
            lr_scheduler_type="constant",
            train_sampling_strategy="group_by_length",
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="roc_auc",
            save_only_model=True,
            seed=seed,
        )
        model = get_peft_model(self._base(), lora)
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=self._encode(kept),
            eval_dataset=self._encode(held_out),
            data_collator=self._collator,
            compute_metrics=lambda outputs: {
                "roc_auc": roc_auc_score(outputs.label_ids, margins(np.asarray(outputs.predictions)))
            },
        )
        trainer.train()
        model.save_pretrained(str(folder))
        shutil.rmtree(work)
        self._use(model, folder)

    def load(self, folder: Path) -> None:
        """Reads the checkpoint and the adapters."""
        self._use(PeftModel.from_pretrained(self._base(), folder), folder)

    def evaluate(self, frame: pd.DataFrame) -> float:
        """ROC-AUC."""
        return float(roc_auc_score(frame["label"], margins(self._logits(frame))))

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Through `Trainer.predict`."""
        return self._logits(frame).argmax(-1)

    def predict_few(self, frame: pd.DataFrame) -> np.ndarray:
        """One plain forward pass."""
        inputs = self._tokenizer(frame["text"].tolist(), truncation=True, padding=True, return_tensors="pt")
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            return self._model(**inputs).logits.argmax(-1).numpy()

    def _base(self) -> torch.nn.Module:
        return AutoModelForSequenceClassification.from_pretrained(self._checkpoint, num_labels=2)

    def _use(self, model: torch.nn.Module, folder: Path) -> None:
        """A trainer for prediction: that of `fit` would return rows in the order of its length-grouped batches."""
        self._model = model.eval()
        work = folder.with_name(f"{folder.name}-predict")
        self._trainer = Trainer(model=model, args=self._arguments(work), data_collator=self._collator)

    def _arguments(self, work: Path, **options: Any) -> TrainingArguments:
        return TrainingArguments(
            output_dir=str(work),
            per_device_eval_batch_size=BATCH,
            bf16=self._bf16,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            **options,
        )

    def _encode(self, frame: pd.DataFrame) -> datasets.Dataset:
        """Token ids, lengths for the sampler, and labels if there are any."""
        encoded = self._tokenizer(frame["text"].tolist(), truncation=True, return_length=True)
        labels = {"labels": frame["label"].tolist()} if "label" in frame else {}
        return datasets.Dataset.from_dict({**encoded, **labels})

    def _logits(self, frame: pd.DataFrame) -> np.ndarray:
        """Logits (rows, 2) in the table's order, computed in order of length."""
        rows = self._encode(frame)
        order = np.argsort(rows["length"], kind="stable")
        logits = np.empty((len(frame), 2), dtype=np.float32)
        logits[order] = self._trainer.predict(rows.select(order)).predictions
        return logits


def margins(logits: np.ndarray) -> np.ndarray:
    """What the positive class is ahead by, (rows,)."""
    return logits[:, 1] - logits[:, 0]


def build(job: dict[str, Any]) -> TrainerLora:
    """The contestant of a job."""
    return TrainerLora(job["checkpoint"], job["bf16"])
