// SPDX-License-Identifier: MIT
// DeviceMoeGemmMXBPreShuffle as AITER 9bab8388 calls it (gemm_moe_ck2stages_common_mxfp4.cuh).
#pragma once

#include "ck/tensor_operation/gpu/device/impl/device_moe_mx_gemm_bpreshuffle.hpp"

#define CK_MX_OPERATION ck::tensor_operation::device::DeviceMoeGemmMXBPreShuffle
#define CK_MX_PAD 1
#define CK_MX_STORE1(BLOCK, N, NX) \
    S<1, N / NX / (BLOCK == 64 ? 1 : 2), 1, BLOCK / (N / NX / (BLOCK == 64 ? 1 : 2))>

#include "mx.hpp"
