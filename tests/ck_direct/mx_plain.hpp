// SPDX-License-Identifier: MIT
// DeviceMoeGemmMXBNS as AITER 9bab8388 calls it (gemm_moe_ck2stages_common_mxfp4_bns.cuh).
#pragma once

#include "ck/tensor_operation/gpu/device/impl/device_moe_mx_gemm_bns.hpp"

#define CK_MX_OPERATION ck::tensor_operation::device::DeviceMoeGemmMXBNS
#define CK_MX_PAD 0
#define CK_PLAIN_WEIGHTS
#define CK_MX_STORE1(BLOCK, N, NX) S<1, 32, 1, 8>

#include "mx.hpp"
