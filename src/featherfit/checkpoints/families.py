"""What differs between families of text models: a checkpoint's `model_type` goes in, a `Family` comes out. Data only.

Those of image models are in `vision.py`.

Module names are relative to one transformer layer and compared whole, never by substring. For an architecture that is
not listed, `family_of` works out the layers from the model itself where it can (`models/generic.py` does that) and the
caller has to name adapter targets by regular expression.
"""

from __future__ import annotations

from dataclasses import dataclass

from featherfit.types import PoolingMode


@dataclass(frozen=True)
class Family:
    """Names inside one family of pretrained models.

    Attributes:
        model_types: The `model_type` values of Hugging Face configs that belong here.
        layers: Path of the module list that holds the layers. In image models `*` stands for every child, as in
            `encoder.layers.*.blocks`, where the layers stand in stages.
        query, key, value, out: Attention projections, relative to a layer. A fused projection stands under all three
            of query, key and value.
        up: First feed-forward projections (all of them where the unit is gated).
        down: Second feed-forward projection; its input is what the IA3 paper scales.
        beyond_float16: Linear layers, relative to a layer, whose outputs can exceed float16's range.
        activation: The module between up and down, where up is a single layer that nothing but the module follows.
        automm: The linears AutoMM's default filter selects, or their equivalents where AutoMM's filter finds nothing.
        pooling: Default pooling.
        decoder: True where a token sees only what stands before it.
        final_norm: Path of the norm after the last layer, which trains along with the head; None if there is none.
        bias_tables: Embedding modules, relative to the encoder or to a layer, that AutoMM counts among the biases
            (relative position biases).
        encoder_class: Class of `transformers` to build where `AutoModel` would build more than the encoder.
        packs: True where rows can stand one after another without padding: the model takes positions from outside and
            leaves attention to an attention implementation.
        first_position: Number of a row's first token among the positions; None where it follows the padding token's id.
        pooler: True where the vector of an image is what the model's own pooler gives, not `pooling`.
        tower: Of a model for images and text, the part of its config that describes the image encoder.
    """

    model_types: tuple[str, ...]
    layers: str
    query: str
    key: str
    value: str
    out: str
    up: tuple[str, ...]
    down: str
    automm: tuple[str, ...]
    pooling: PoolingMode
    decoder: bool = False
    final_norm: str | None = None
    bias_tables: tuple[str, ...] = ()
    encoder_class: str | None = None
    packs: bool = False
    first_position: int | None = 0
    activation: str | None = None
    beyond_float16: tuple[str, ...] = ()
    pooler: bool = False
    tower: str | None = None

    def target_set(self, name: str) -> tuple[str, ...] | None:
        """Module names, relative to a layer, of the named set; None for `all-linear`, which takes every linear.

        Empty where the family does not know the names.
        """
        sets: dict[str, tuple[str, ...] | None] = {
            "automm": self.automm,
            "attention": (self.query, self.key, self.value, self.out),
            "paper": (self.key, self.value, self.down),
            "all-linear": None,
        }
        names = sets[name]
        return None if names is None else tuple(dict.fromkeys(filter(None, names)))


TARGET_SETS = ("automm", "attention", "all-linear", "paper")

AUTOMM_FILTER = ("query", "value", "^q$", "^v$", "^k$", "^o$")
"""AutoMM's literal default of `optim.lora.filter`, regular expressions that `re.match` a module's own name."""


def _bert(*model_types: str, first_position: int | None) -> Family:
    return Family(
        model_types=model_types,
        layers="encoder.layer",
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        out="attention.output.dense",
        up=("intermediate.dense",),
        down="output.dense",
        automm=("attention.self.query", "attention.self.value"),
        pooling="cls",
        packs=True,
        first_position=first_position,
        activation="intermediate.intermediate_act_fn",
    )


_DEBERTA = Family(
    model_types=("deberta-v2",),
    layers="encoder.layer",
    query="attention.self.query_proj",
    key="attention.self.key_proj",
    value="attention.self.value_proj",
    out="attention.output.dense",
    up=("intermediate.dense",),
    down="output.dense",
    automm=("attention.self.query_proj", "attention.self.value_proj"),
    pooling="cls",
)
_MPNET = Family(
    model_types=("mpnet",),
    layers="encoder.layer",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    out="attention.attn.o",
    up=("intermediate.dense",),
    down="output.dense",
    automm=("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
    pooling="mean",
    bias_tables=("encoder.relative_attention_bias",),
)
_ALBERT = Family(
    model_types=("albert",),
    packs=True,
    layers="encoder.albert_layer_groups",
    query="albert_layers.0.attention.query",
    key="albert_layers.0.attention.key",
    value="albert_layers.0.attention.value",
    out="albert_layers.0.attention.dense",
    up=("albert_layers.0.ffn",),
    down="albert_layers.0.ffn_output",
    automm=("albert_layers.0.attention.query", "albert_layers.0.attention.value"),
    pooling="cls",
)
_DISTILBERT = Family(
    model_types=("distilbert",),
    packs=True,
    layers="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    out="attention.out_lin",
    up=("ffn.lin1",),
    down="ffn.lin2",
    activation="ffn.activation",
    automm=("attention.q_lin", "attention.v_lin"),
    pooling="cls",
)
_MODERNBERT = Family(
    model_types=("modernbert",),
    packs=True,
    layers="layers",
    query="attn.Wqkv",
    key="attn.Wqkv",
    value="attn.Wqkv",
    out="attn.Wo",
    up=("mlp.Wi",),
    down="mlp.Wo",
    automm=("attn.Wqkv",),
    pooling="mean",
    final_norm="final_norm",
)


def _t5(model_type: str, encoder_class: str) -> Family:
    attention = "layer.0.SelfAttention"
    return Family(
        model_types=(model_type,),
        layers="encoder.block",
        query=f"{attention}.q",
        key=f"{attention}.k",
        value=f"{attention}.v",
        out=f"{attention}.o",
        up=("layer.1.DenseReluDense.wi", "layer.1.DenseReluDense.wi_0", "layer.1.DenseReluDense.wi_1"),
        down="layer.1.DenseReluDense.wo",
        automm=(f"{attention}.q", f"{attention}.k", f"{attention}.v", f"{attention}.o"),
        pooling="mean",
        final_norm="encoder.final_layer_norm",
        bias_tables=(f"{attention}.relative_attention_bias",),
        encoder_class=encoder_class,
        beyond_float16=("layer.1.DenseReluDense.wo",),
    )


def _llama(*model_types: str, pooling: PoolingMode, decoder: bool, packs: bool = True) -> Family:
    return Family(
        model_types=model_types,
        layers="layers",
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        out="self_attn.o_proj",
        up=("mlp.gate_proj", "mlp.up_proj"),
        down="mlp.down_proj",
        automm=("self_attn.q_proj", "self_attn.v_proj"),
        pooling=pooling,
        decoder=decoder,
        final_norm="norm",
        packs=packs,
    )


FAMILIES: tuple[Family, ...] = (
    _bert("bert", "electra", first_position=0),
    _bert("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", first_position=None),
    _DEBERTA,
    _MPNET,
    _ALBERT,
    _DISTILBERT,
    _MODERNBERT,
    _llama("eurobert", pooling="mean", decoder=False),
    _t5("t5", "T5EncoderModel"),
    _t5("mt5", "MT5EncoderModel"),
    _t5("umt5", "UMT5EncoderModel"),
    _llama("llama", "mistral", "qwen2", "qwen3", "smollm3", pooling="last", decoder=True),
    _llama("gemma", "gemma2", "gemma3_text", pooling="last", decoder=True, packs=False),
)

_BY_TYPE = {model_type: family for family in FAMILIES for model_type in family.model_types}


def family_of(model_type: str) -> Family | None:
    """The family of a Hugging Face `model_type`, or None if it is not one we know."""
    return _BY_TYPE.get(model_type)
