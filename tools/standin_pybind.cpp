/* SPDX-License-Identifier: MIT
 * What AITER's compiled module does at least for a call, for tools/bench_load: a pybind function
 * of 19 arguments takes sizes and addresses from torch tensors, fills 200 bytes and launches one
 * kernel. It stands in for the real one, which also looks its kernel up by name, runs CK's
 * argument code and switches devices, and which needs ROCm's torch to be compiled.
 */
#include <ATen/core/Tensor.h>
#include <torch/csrc/utils/pybind.h>

#include <cstdint>
#include <optional>
#include <string>

extern "C" int hipModuleLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz,
                                     unsigned bx, unsigned by, unsigned bz, unsigned lds,
                                     void* stream, void** params, void** extra);

namespace {

using Tensor   = at::Tensor;
using Optional = std::optional<at::Tensor>;

void* function_handle = nullptr;

struct Argument
{
    const void* pointers[9];
    int64_t sizes[16];
};

const void* address(const Optional& tensor) { return tensor ? tensor->data_ptr() : nullptr; }

void stage1(Tensor& hidden_states, Tensor& w1, Tensor& w2, Tensor& sorted_token_ids,
            Tensor& sorted_expert_ids, Tensor& num_valid_ids, Tensor& out, int topk,
            std::optional<std::string> kernel_name, Optional w1_scale, Optional a1_scale,
            std::optional<int> block_m, Optional sorted_weights, int quant_type, int activation,
            std::optional<int> splitk, bool non_temporal, std::optional<std::string> dst_type,
            bool is_shuffled)
{
    TORCH_CHECK(out.dtype() == at::ScalarType::Half || out.dtype() == at::ScalarType::BFloat16,
                "only Half and BFloat16 are written");
    const int64_t tokens = hidden_states.size(0), experts = w1.size(0), n = w1.size(1) / 2,
                  k = hidden_states.size(-1), rows = block_m.value_or(32),
                  sorted_size = std::min<int64_t>(tokens * topk * rows, sorted_token_ids.size(0));
    Argument argument{{hidden_states.data_ptr(), address(a1_scale), w1.data_ptr(),
                       address(w1_scale), sorted_token_ids.data_ptr(),
                       sorted_expert_ids.data_ptr(), num_valid_ids.data_ptr(),
                       address(sorted_weights), out.data_ptr()},
                      {tokens, topk, sorted_size, n, k, experts, splitk.value_or(1), w2.size(1),
                       hidden_states.stride(0), w1.stride(0), w1.stride(1), out.stride(0),
                       quant_type, activation, non_temporal + 2 * is_shuffled,
                       static_cast<int64_t>(kernel_name.value_or("").size() +
                                            dst_type.value_or("").size())}};
    size_t size   = sizeof argument;
    void* extra[] = {(void*)1, &argument, (void*)2, &size, (void*)3};
    const int code =
        hipModuleLaunchKernel(function_handle, static_cast<unsigned>(n / 128),
                              static_cast<unsigned>((sorted_size + rows - 1) / rows), 1, 256, 1, 1,
                              0, nullptr, nullptr, extra);
    TORCH_CHECK(code == 0, "the launch failed: ", code);
}

} // namespace

PYBIND11_MODULE(standin_pybind, m)
{
    namespace py = pybind11;
    m.def("use", [](uintptr_t handle) { function_handle = reinterpret_cast<void*>(handle); });
    m.def("ck_moe_stage1", &stage1, py::arg("hidden_states"), py::arg("w1"), py::arg("w2"),
          py::arg("sorted_token_ids"), py::arg("sorted_expert_ids"), py::arg("num_valid_ids"),
          py::arg("out"), py::arg("topk"), py::arg("kernelName") = std::nullopt,
          py::arg("w1_scale") = std::nullopt, py::arg("a1_scale") = std::nullopt,
          py::arg("block_m") = 32, py::arg("sorted_weights") = std::nullopt,
          py::arg("quant_type") = 0, py::arg("activation") = 0, py::arg("splitk") = 1,
          py::arg("use_non_temporal_load") = false, py::arg("dst_type") = std::nullopt,
          py::arg("is_shuffled") = true);
}
