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
constexpr int64_t kTasksPerThread = 4;
constexpr int64_t kMaxTaskPanels = 64;

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

// The words of all rows of x, row after row, for the products of one policy and shape: a row that many products gather (a token
// and its experts) is converted once.
struct SharedConversion {
  const TilePolicy* policy = nullptr;
  RowShape shape;
  int64_t words_per_row = 0;
  int64_t first_word = 0;
};

// A product with all that the phases need; tiles and tasks are numbered through all products.
struct PlannedProduct {
  const TilePolicy* policy = nullptr;
  PanelView weights;
  int64_t product = 0;
  int64_t row_begin = 0;
  int64_t num_rows = 0;
  int64_t num_panels = 0;
  int64_t words_per_row = 0;
  int64_t first_word = 0;  // of its activations
  int64_t conversion = 0;  // where its rows are gathered from, if there is an index
  int64_t num_tiles = 0;
  int64_t num_blocks = 0;
  int64_t num_panel_groups = 0;
  int64_t first_tile = 0;
  int64_t first_task = 0;

  Range rows_of_tile(int64_t tile) const { return part_of(num_rows, tile, num_tiles); }
};

template <typename T>
void grow(std::vector<T>& buffer, int64_t size) {
  if (buffer.size() < static_cast<size_t>(size)) buffer.resize(static_cast<size_t>(size));
}

struct Plan {
  std::vector<PlannedProduct> products;
  std::vector<SharedConversion> conversions;  // none without an index
  int64_t num_words = 0;
  int64_t num_shared_words = 0;
  int64_t num_tiles = 0;
  int64_t num_tasks = 0;
  int64_t panels_per_task = 0;         // a multiple of kMaxTilePanels
  std::vector<uint32_t> activations;   // only grows
  std::vector<uint32_t> shared_words;  // only grows
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
  return planned;
}

// The conversion that fits `product`, made if there is none: formats are few, so a search is short.
int64_t conversion_of(const PlannedProduct& product, int64_t num_rows_of_x, Plan& plan) {
  const RowShape& shape = product.weights.shape;
  const auto fits = [&](const SharedConversion& conversion) {
    return conversion.policy == product.policy && conversion.shape.group_size == shape.group_size &&
           conversion.shape.num_columns == shape.num_columns;
  };
  const auto found = std::find_if(plan.conversions.begin(), plan.conversions.end(), fits);
  if (found != plan.conversions.end()) return found - plan.conversions.begin();
  plan.conversions.push_back({product.policy, shape, product.words_per_row, plan.num_shared_words});
  plan.num_shared_words += num_rows_of_x * product.words_per_row;
  return static_cast<int64_t>(plan.conversions.size()) - 1;
}

// A task takes consecutive panels, because a tile fetches those behind it into the second-level cache of its own core; tasks are
// so many that threads end together.
void cut_into_tasks(int num_threads, Plan& plan) {
  int64_t num_panels = 0;
  for (const PlannedProduct& product : plan.products) num_panels += product.num_blocks * product.num_panels;
  const int64_t fair_share = num_panels / (num_threads * kTasksPerThread) / kMaxTilePanels * kMaxTilePanels;
  plan.panels_per_task = std::clamp(fair_share, int64_t{kMaxTilePanels}, kMaxTaskPanels);
  for (PlannedProduct& product : plan.products) {
    product.num_panel_groups = divide_up(product.num_panels, plan.panels_per_task);
    product.first_task = plan.num_tasks;
    plan.num_tasks += product.num_blocks * product.num_panel_groups;
  }
}

void make_plan(const ActivationRows& rows, std::span<const PanelProduct> products, int num_threads, Plan& plan) {
  plan.products.clear();
  plan.conversions.clear();
  plan.num_words = plan.num_shared_words = plan.num_tiles = plan.num_tasks = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    if (products[i].num_rows == 0) continue;  // its weights stay untouched, perhaps on disk
    PlannedProduct& product = plan.products.emplace_back(planned(products[i], static_cast<int64_t>(i)));
    product.first_word = plan.num_words;
    product.first_tile = plan.num_tiles;
    if (rows.row_index != nullptr) product.conversion = conversion_of(product, rows.x.dim(0), plan);
    plan.num_words += product.num_rows * product.words_per_row;
    plan.num_tiles += product.num_tiles;
  }
  cut_into_tasks(num_threads, plan);
  grow(plan.activations, plan.num_words);
  grow(plan.shared_words, plan.num_shared_words);
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

ConversionRows& conversion_rows() {
  thread_local ConversionRows rows;
  return rows;
}

const float* floats_of_row(const Tensor& x, int64_t row) {
  if (x.dtype() == DType::kF32) return x.row<float>(row);
  const bf16* source = x.row<bf16>(row);
  std::vector<float>& widened = conversion_rows().floats;
  grow(widened, x.dim(1));
  for (int64_t i = 0; i < x.dim(1); ++i) widened[static_cast<size_t>(i)] = static_cast<float>(source[i]);
  return widened.data();
}

void convert_shared(const Tensor& x, const Plan& plan, uint32_t* shared_words, ThreadPool& workers) {
  for (const SharedConversion& conversion : plan.conversions) {
    const int64_t num_words = conversion.words_per_row;
    workers.parallel_ranges(x.dim(0), kWordsWorthThreads / std::max<int64_t>(1, num_words), [&](int64_t begin, int64_t end) {
      uint32_t* words = shared_words + conversion.first_word;
      for (int64_t row = begin; row < end; ++row) {
        conversion.policy->convert_row(conversion.shape, floats_of_row(x, row), words + row * num_words);
      }
    });
  }
}

// The words of one row of a product: copied from the shared ones, or converted.
void words_of_row(const ActivationRows& rows, const Plan& plan, const PlannedProduct& product, int64_t row, uint32_t* target) {
  const int64_t num_words = product.words_per_row;
  if (rows.row_index == nullptr) {
    return product.policy->convert_row(product.weights.shape, floats_of_row(rows.x, product.row_begin + row), target);
  }
  const int64_t first_word = plan.conversions[static_cast<size_t>(product.conversion)].first_word;
  const int64_t index = rows.row_index[product.row_begin + row];
  const uint32_t* words = plan.shared_words.data() + first_word + index * num_words;
  std::memcpy(target, words, static_cast<size_t>(num_words) * sizeof(uint32_t));
}

void convert_tile(const ActivationRows& rows, const Plan& plan, const PlannedProduct& product, int64_t tile,
                  uint32_t* activations) {
  ConversionRows& scratch = conversion_rows();
  const Range in_product = product.rows_of_tile(tile);
  const int64_t num_words = product.words_per_row;
  uint32_t* target = activations + product.first_word + in_product.begin * num_words;
  if (in_product.size() == 1) return words_of_row(rows, plan, product, in_product.begin, target);
  grow(scratch.words, in_product.size() * num_words);
  for (int64_t row = 0; row < in_product.size(); ++row) {
    words_of_row(rows, plan, product, in_product.begin + row, scratch.words.data() + row * num_words);
  }
  const int64_t row_bytes = num_words * int64_t{sizeof(uint32_t)};
  transpose_words({scratch.words.data(), in_product.size(), num_words, row_bytes}, target, in_product.size());
}

void convert_activations(const ActivationRows& rows, const Plan& plan, uint32_t* activations, ThreadPool& workers) {
  const auto convert = [&](int64_t number) {
    const PlannedProduct& product = product_of(plan, &PlannedProduct::first_tile, number);
    convert_tile(rows, plan, product, number - product.first_tile, activations);
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
  make_plan(rows, products, workers.num_threads(), plan);
  convert_shared(rows.x, plan, plan.shared_words.data(), workers);
  convert_activations(rows, plan, plan.activations.data(), workers);
  workers.parallel_for(plan.num_tasks, [&](int64_t task) {
    const PlannedProduct& product = product_of(plan, &PlannedProduct::first_task, task);
    const int64_t in_product = task - product.first_task;
    const int64_t group = in_product % product.num_panel_groups;
    const Range panels = {group * plan.panels_per_task, std::min((group + 1) * plan.panels_per_task, product.num_panels)};
    const Range tiles = part_of(product.num_tiles, in_product / product.num_panel_groups, product.num_blocks);
    multiply_block(product, plan.activations.data(), tiles, panels, finish);
  });
}

const TilePolicy& policy_of(const PackedMatrix& matrix) {
  if (matrix.format.is_integer()) return integer_tile_policy(matrix.format.kind, best_isa());
  return float_tile_policy(matrix.format.kind, matrix.activations, best_isa());
}

}  // namespace skipper::cpu
