#include "model/rotary_positions.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace skipper {
namespace {

[[noreturn]] void refuse(const std::string& message) { throw InvalidRequest(message, "messages"); }

// Writes the positions one token after the other.
class PositionWriter {
 public:
  explicit PositionWriter(Tensor& positions) : out_(positions.data<int32_t>()) {}

  void text_token() {
    put(next_, next_, next_);
    ++next_;
  }

  void image(const ImageGrid& grid, int64_t merge_size) {
    const auto rows = static_cast<int32_t>(grid.h / merge_size);
    const auto columns = static_cast<int32_t>(grid.w / merge_size);
    for (int32_t frame = 0; frame < grid.t; ++frame) {
      for (int32_t y = 0; y < rows; ++y) {
        for (int32_t x = 0; x < columns; ++x) put(next_ + frame, next_ + y, next_ + x);
      }
    }
    next_ += std::max(rows, columns);
  }

  int32_t highest() const { return highest_; }

 private:
  void put(int32_t temporal, int32_t height, int32_t width) {
    *out_++ = temporal;
    *out_++ = height;
    *out_++ = width;
    highest_ = std::max({highest_, temporal, height, width});
  }

  int32_t* out_;
  int32_t next_ = 0;
  int32_t highest_ = -1;
};

bool is_placeholder(int32_t token_id, const ModelConfig& config) {
  return config.vision && token_id == config.vision->image_token_id;
}

void check_placeholders(std::span<const int32_t> token_ids, const ImageGrid& image, const ModelConfig& config) {
  const int64_t merge_size = config.vision->spatial_merge_size;
  if (image.t < 1 || image.h < 1 || image.w < 1 || image.h % merge_size != 0 || image.w % merge_size != 0) {
    refuse("an image of " + std::to_string(image.t) + " x " + std::to_string(image.h) + " x " + std::to_string(image.w) +
           " patches; expected positive multiples of " + std::to_string(merge_size) + " down and across");
  }
  const auto end = std::ranges::find_if_not(token_ids, [&](int32_t id) { return is_placeholder(id, config); });
  const int64_t present = end - token_ids.begin();
  if (present < image.num_tokens(merge_size)) {
    refuse("an image of " + std::to_string(image.num_tokens(merge_size)) + " tokens has only " + std::to_string(present) +
           " placeholder tokens in the prompt");
  }
}

}  // namespace

RotaryPositions sequence_rotary_positions(std::span<const int32_t> token_ids, std::span<const ImageGrid> images,
                                          const ModelConfig& config) {
  if (!images.empty() && !config.vision) refuse("images sent to a text-only model; remove them");
  RotaryPositions result{Tensor::empty({static_cast<int64_t>(token_ids.size()), 3}, DType::kI32), 0};
  PositionWriter writer(result.positions);
  size_t next_image = 0;
  for (size_t t = 0; t < token_ids.size();) {
    if (!is_placeholder(token_ids[t], config)) {
      writer.text_token();
      ++t;
      continue;
    }
    if (next_image == images.size()) {
      refuse("placeholder token " + std::to_string(t) + " of the prompt belongs to none of its " +
             std::to_string(images.size()) + " images");
    }
    const ImageGrid& image = images[next_image++];
    check_placeholders(token_ids.subspan(t), image, config);
    writer.image(image, config.vision->spatial_merge_size);
    t += static_cast<size_t>(image.num_tokens(config.vision->spatial_merge_size));
  }
  if (next_image < images.size()) {
    refuse(std::to_string(images.size()) + " images but placeholders for " + std::to_string(next_image));
  }
  result.next_position = writer.highest() + 1;
  return result;
}

}  // namespace skipper
