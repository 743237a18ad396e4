#include "quantization/quantization_plan.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "model/checkpoint_reader.h"

namespace skipper {
namespace {

class Planner {
 public:
  Planner(const Checkpoint& checkpoint, const ModelConfig& config, const QuantizedFormats& formats)
      : checkpoint_(checkpoint), config_(config), formats_(formats) {}

  QuantizationPlan plan() {
    for (int64_t layer = 0; layer < config_.num_layers(); ++layer) {
      plan_.groups.emplace_back();
      if (formats_.dense) add_attention(layer);
      if (config_.is_moe_layer(layer)) {
        add_experts(layer);
      } else if (formats_.dense) {
        add_dense_feed_forward(layer);
      }
    }
    if (formats_.dense) add_head();
    add_copies();
    return std::move(plan_);
  }

 private:
  std::string layer_prefix(int64_t layer) const { return config_.text_prefix + "layers." + std::to_string(layer) + "."; }

  // The tensor that a packed matrix replaces.
  Tensor take(const std::string& name, const Shape& shape) {
    taken_.insert(name);
    return float_view(checkpoint_, name, shape);
  }

  WeightView rows_of(const std::string& name, const Shape& shape) {
    return {name, take(name, shape), RowOrder::kRows, 0, shape[0]};
  }

  void add_dense(const InputKey& input, const std::string& name, const Shape& shape) {
    add_dense(input, name, rows_of(name + ".weight", shape));
  }

  void add_dense(const InputKey& input, const std::string& name, WeightView rows) {
    const PackedShape shape{rows.num_rows, rows.num_columns()};
    plan_.groups.back().push_back({WeightClass::kDense, input, {name, *formats_.dense, shape, {std::move(rows)}}});
  }

  void add_attention(int64_t layer) {
    const std::string prefix = layer_prefix(layer) + "self_attn.";
    const InputKey input{MatrixInput::kAttention, static_cast<int>(layer)};
    const AttentionConfig& attention = config_.attention;
    const int64_t query_size = attention.num_heads * attention.kv.key_dim;
    add_dense(input, prefix + "q_proj", {query_size, config_.hidden_size});
    add_dense(input, prefix + "k_proj", {attention.kv.kv_heads * attention.kv.key_dim, config_.hidden_size});
    add_dense(input, prefix + "v_proj", {attention.kv.kv_heads * attention.kv.value_dim, config_.hidden_size});
    add_dense({MatrixInput::kAttentionOutput, static_cast<int>(layer)}, prefix + "o_proj", {config_.hidden_size, query_size});
  }

  void add_dense_feed_forward(int64_t layer) {
    const std::string prefix = layer_prefix(layer) + "mlp.";
    const InputKey gate_up{MatrixInput::kGateUp, static_cast<int>(layer)}, down{MatrixInput::kDown, static_cast<int>(layer)};
    add_dense(gate_up, prefix + "gate_proj", {config_.dense_intermediate_size, config_.hidden_size});
    add_dense(gate_up, prefix + "up_proj", {config_.dense_intermediate_size, config_.hidden_size});
    add_dense(down, prefix + "down_proj", {config_.hidden_size, config_.dense_intermediate_size});
  }

  void add_expert(MatrixInput input, int64_t expert, MatrixSource source) {
    const InputKey key{input, num_moe_layers_, static_cast<int>(expert)};
    plan_.groups.back().push_back({WeightClass::kExperts, key, std::move(source)});
  }

  void add_experts(int64_t layer) {
    const bool is_fused = config_.moe.layout == ExpertLayout::kFusedTransposed;
    for (int64_t expert = 0; expert < config_.moe.num_experts; ++expert) {
      const std::string prefix = expert_prefix(config_.text_prefix, layer, expert);
      const WeightFormat& format = formats_.of_expert(layer, expert);
      const int64_t width = config_.moe.intermediate_size, hidden_size = config_.hidden_size;
      std::vector<WeightView> views = is_fused ? fused_views(layer, expert) : per_expert_views(prefix);
      add_expert(MatrixInput::kGateUp, expert,
                 {prefix + "gate_up", format, gate_up_shape(width, hidden_size), {std::move(views[0]), std::move(views[1])}});
      add_expert(MatrixInput::kDown, expert, {prefix + "down", format, {hidden_size, width}, {std::move(views[2])}});
    }
    ++num_moe_layers_;
  }

  // Gate, up, down.
  std::vector<WeightView> per_expert_views(const std::string& prefix) {
    const Shape half{config_.moe.intermediate_size, config_.hidden_size};
    return {rows_of(prefix + "gate_proj.weight", half), rows_of(prefix + "up_proj.weight", half),
            rows_of(prefix + "down_proj.weight", {half[1], half[0]})};
  }

  std::vector<WeightView> fused_views(int64_t layer, int64_t expert) {
    const std::string prefix = layer_prefix(layer) + "mlp.experts.";
    const int64_t width = config_.moe.intermediate_size, hidden_size = config_.hidden_size;
    const int64_t num_experts = config_.moe.num_experts;
    const std::string gate_up = prefix + "gate_up_proj", down = prefix + "down_proj";
    const Tensor both = take(gate_up, {num_experts, hidden_size, 2 * width}).at(expert);
    const std::string where = " (expert " + std::to_string(expert) + ")";
    return {{gate_up + where, both, RowOrder::kColumns, 0, width},
            {gate_up + where, both, RowOrder::kColumns, width, width},
            {down + where, take(down, {num_experts, width, hidden_size}).at(expert), RowOrder::kColumns, 0, hidden_size}};
  }

  void add_head() {
    plan_.groups.emplace_back();
    const Shape shape{config_.vocab_size, config_.hidden_size};
    if (!config_.tie_word_embeddings) return add_dense({MatrixInput::kHead}, "lm_head", shape);
    // The table itself stays for looking up.
    const std::string table = config_.text_prefix + "embed_tokens.weight";
    WeightView rows{table, float_view(checkpoint_, table, shape), RowOrder::kRows, 0, shape[0]};
    add_dense({MatrixInput::kHead}, "lm_head", std::move(rows));
  }

  void add_copies() {
    for (const std::string& name : checkpoint_.names()) {
      if (!taken_.contains(name)) plan_.copies.push_back(name);
    }
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const QuantizedFormats& formats_;
  QuantizationPlan plan_;
  std::set<std::string> taken_;
  int num_moe_layers_ = 0;  // so far
};

void add_packed(const MatrixSource& source, std::vector<TensorPlan>& tensors) {
  const WeightFormat& format = source.format;
  const int64_t panels = source.num_panels();
  tensors.push_back({source.name + ".codes", DType::kU8, {panels, panel_bytes(format, source.shape.num_columns)}});
  if (!format.is_integer()) return;
  const Shape groups{panels, (source.shape.num_columns + format.group_size - 1) / format.group_size, kPanelRows};
  tensors.push_back({source.name + ".scales", DType::kBF16, groups});
  if (format.is_asymmetric()) tensors.push_back({source.name + ".zeros", DType::kU8, groups});
}

void refuse_double_names(const std::vector<TensorPlan>& tensors, const Checkpoint& checkpoint) {
  std::set<std::string> names;
  for (const TensorPlan& tensor : tensors) {
    if (names.insert(tensor.name).second) continue;
    throw InvalidFile(checkpoint.directory().string() + ": tensor " + tensor.name +
                      " has the name that a quantised matrix takes; quantise an original checkpoint");
  }
}

}  // namespace

QuantizationPlan plan_quantization(const Checkpoint& checkpoint, const ModelConfig& config, const QuantizedFormats& formats) {
  return Planner(checkpoint, config, formats).plan();
}

std::vector<TensorPlan> tensors_of(const QuantizationPlan& plan, const Checkpoint& checkpoint) {
  std::vector<TensorPlan> tensors;
  for (const std::string& name : plan.copies) {
    const Tensor tensor = checkpoint.get(name);
    tensors.push_back({name, tensor.dtype(), tensor.shape()});
  }
  for (const auto& group : plan.groups) {
    for (const PlannedMatrix& matrix : group) add_packed(matrix.source, tensors);
  }
  refuse_double_names(tensors, checkpoint);
  return tensors;
}

}  // namespace skipper
