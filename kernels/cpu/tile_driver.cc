#include "kernels/cpu/tile_driver.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "kernels/cpu/float_tiles.h"
#include "kernels/cpu/integer_tiles.h"
#include "kernels/cpu/word_transpose.h"

namespace skipper::cpu {
namespace {

// Converted activations of the row tiles that one task multiplies: they share the second-level cache with a few panels.
constexpr int64_t kBlockBytes = int64_t{256} << 10;
// Fewer words than this are converted sooner than threads are woken.
constexpr int64_t kWordsWorthThreads = 16384;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// Part `index` of `num_parts` of nearly equal size.
Range part_of(int64_t size, int64_t index, int64_t num_parts) {
  return {size * index / num_parts, size * (index + 1) / num_parts};
}

// A product with all that the two phases need; tiles and tasks are numbered through all products.
struct PlannedProduct {
  const TilePolicy* policy = nullptr;
  PanelView weights;
  int64_t product = 0;
  int64_t row_begin = 0;
  int64_t num_rows = 0;
  int64_t num_panels = 0;
  int64_t words_per_row = 0;
  int64_t first_word = 0;  // of its activations
  int64_t num_tiles = 0;
  int64_t num_blocks = 0;
  int64_t num_panel_groups = 0;
  int64_t first_tile = 0;
  int64_t first_task = 0;

  Range rows_of_tile(int64_t tile) const { return part_of(num_rows, tile, num_tiles); }
};

struct Plan {
  std::vector<PlannedProduct> products;
  int64_t num_words = 0;
  int64_t num_tiles = 0;
  int64_t num_tasks = 0;
  std::vector<uint32_t> activations;  // only grows
};

PanelView view_of(const PackedMatrix& matrix) {
  PanelView view;
  view.codes = matrix.codes.data<uint8_t>();
  view.panel_bytes = matrix.codes.dim(1);
  if (matrix.scales.defined()) view.scales = matrix.scales.data<bf16>();
  if (matrix.zeros.defined()) view.zeros = matrix.zeros.data<uint8_t>();
  view.shape = {.num_columns = matrix.num_columns, .group_size = matrix.format.group_size};
  return view;
}

PlannedProduct planned(const PanelProduct& product, int64_t index) {
  PlannedProduct planned;
  planned.policy = &policy_of(*product.matrix);
  planned.weights = view_of(*product.matrix);
  planned.product = index;
  planned.row_begin = product.row_begin;
  planned.num_rows = product.num_rows;
  planned.num_panels = product.matrix->num_panels();
  planned.words_per_row = planned.policy->words_per_row(planned.weights.shape);
  planned.num_tiles = divide_up(product.num_rows, planned.policy->max_rows);
  const int64_t tile_bytes = planned.policy->max_rows * planned.words_per_row * int64_t{sizeof(uint32_t)};
  const int64_t tiles_per_block = std::max<int64_t>(1, kBlockBytes / std::max<int64_t>(1, tile_bytes));
  planned.num_blocks = divide_up(planned.num_tiles, tiles_per_block);
  planned.num_panel_groups = divide_up(planned.num_panels, kMaxTilePanels);
  return planned;
}

void make_plan(std::span<const PanelProduct> products, Plan& plan) {
  plan.products.clear();
  plan.num_words = plan.num_tiles = plan.num_tasks = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    if (products[i].num_rows == 0) continue;  // its weights stay untouched, perhaps on disk
    PlannedProduct& product = plan.products.emplace_back(planned(products[i], static_cast<int64_t>(i)));
    product.first_word = plan.num_words;
    product.first_tile = plan.num_tiles;
    product.first_task = plan.num_tasks;
    plan.num_words += product.num_rows * product.words_per_row;
    plan.num_tiles += product.num_tiles;
    plan.num_tasks += product.num_blocks * product.num_panel_groups;
  }
  if (plan.activations.size() < static_cast<size_t>(plan.num_words)) plan.activations.resize(static_cast<size_t>(plan.num_words));
}

// The product that tile or task `number` belongs to.
const PlannedProduct& product_of(const Plan& plan, int64_t PlannedProduct::*first, int64_t number) {
  const auto behind = std::upper_bound(plan.products.begin(), plan.products.end(), number,
                                       [first](int64_t value, const PlannedProduct& product) { return value < product.*first; });
  return *(behind - 1);
}

// What a thread converts rows in; only grows.
struct ConversionRows {
  std::vector<uint32_t> words;
  std::vector<float> floats;
};

const float* floats_of_row(const ActivationRows& rows, int64_t row, std::vector<float>& widened) {
  const int64_t index = rows.row_index == nullptr ? row : rows.row_index[row];
  if (rows.x.dtype() == DType::kF32) return rows.x.row<float>(index);
  const bf16* source = rows.x.row<bf16>(index);
  const auto size = static_cast<size_t>(rows.x.dim(1));
  if (widened.size() < size) widened.resize(size);
  for (size_t i = 0; i < size; ++i) widened[i] = static_cast<float>(source[i]);
  return widened.data();
}

void convert_tile(const ActivationRows& rows, const PlannedProduct& product, int64_t tile, uint32_t* activations) {
  thread_local ConversionRows scratch;
  const Range in_product = product.rows_of_tile(tile);
  const int64_t num_words = product.words_per_row;
  uint32_t* target = activations + product.first_word + in_product.begin * num_words;
  const bool is_alone = in_product.size() == 1;
  const auto needed = static_cast<size_t>(in_product.size() * num_words);
  if (!is_alone && scratch.words.size() < needed) scratch.words.resize(needed);
  for (int64_t row = 0; row < in_product.size(); ++row) {
    const float* x = floats_of_row(rows, product.row_begin + in_product.begin + row, scratch.floats);
    product.policy->convert_row(product.weights.shape, x, is_alone ? target : scratch.words.data() + row * num_words);
  }
  if (is_alone) return;
  const int64_t row_bytes = num_words * int64_t{sizeof(uint32_t)};
  transpose_words({scratch.words.data(), in_product.size(), num_words, row_bytes}, target, in_product.size());
}

void convert_activations(const ActivationRows& rows, const Plan& plan, uint32_t* activations, ThreadPool& workers) {
  const auto convert = [&](int64_t number) {
    const PlannedProduct& product = product_of(plan, &PlannedProduct::first_tile, number);
    convert_tile(rows, product, number - product.first_tile, activations);
  };
  ThreadPool& threads = plan.num_words < kWordsWorthThreads ? ThreadPool::caller_only() : workers;
  threads.parallel_for(plan.num_tiles, convert);
}

// One row tile times panels [panels.begin, panels.end), in register tiles as wide as its number of rows allows.
void multiply_tile(const PlannedProduct& product, const uint32_t* activations, int64_t num_rows, const Range& panels,
                   float* sums) {
  const auto tile_rows = static_cast<size_t>(num_rows);
  int64_t width = product.policy->panels_at_once[tile_rows];
  for (int64_t panel = panels.begin; panel < panels.end; panel += width) {
    while (width > panels.end - panel) width /= 2;
    const auto log_width = std::countr_zero(static_cast<uint64_t>(width));
    product.policy->multiply[tile_rows][log_width](
        {activations, product.weights.from(panel), sums + (panel - panels.begin) * kPanelRows});
  }
}

void multiply_block(const PlannedProduct& product, const uint32_t* activations, const Range& tiles, const Range& panels,
                    const TileFinish& finish) {
  alignas(64) float sums[kMaxTileRows * kSumsStride];
  const int64_t most_rows = divide_up(product.num_rows, product.num_tiles);
  const int64_t step = std::max(2, product.policy->panels_at_once[static_cast<size_t>(most_rows)]);
  for (int64_t panel = panels.begin; panel < panels.end; panel += step) {
    const Range together = {panel, std::min(panel + step, panels.end)};
    for (int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
      const Range rows = product.rows_of_tile(tile);
      const uint32_t* words = activations + product.first_word + rows.begin * product.words_per_row;
      multiply_tile(product, words, rows.size(), together, sums);
      finish({sums, product.product, product.row_begin + rows.begin, rows.size(), panel, together.size()});
    }
  }
}

}  // namespace

void multiply_panels(const ActivationRows& rows, std::span<const PanelProduct> products, const TileFinish& finish,
                     ThreadPool& workers) {
  thread_local Plan plan_of_thread;
  Plan& plan = plan_of_thread;  // of this thread, in the tasks too
  make_plan(products, plan);
  convert_activations(rows, plan, plan.activations.data(), workers);
  workers.parallel_for(plan.num_tasks, [&](int64_t task) {
    const PlannedProduct& product = product_of(plan, &PlannedProduct::first_task, task);
    const int64_t in_product = task - product.first_task;
    const int64_t group = in_product % product.num_panel_groups;
    const Range panels = {group * kMaxTilePanels, std::min((group + 1) * kMaxTilePanels, product.num_panels)};
    const Range tiles = part_of(product.num_tiles, in_product / product.num_panel_groups, product.num_blocks);
    multiply_block(product, plan.activations.data(), tiles, panels, finish);
  });
}

const TilePolicy& policy_of(const PackedMatrix& matrix) {
  if (matrix.format.is_integer()) return integer_tile_policy(matrix.format.kind, best_isa());
  return float_tile_policy(matrix.format.kind, matrix.activations, best_isa());
}

}  // namespace skipper::cpu
