// SPDX-License-Identifier: MIT
// Short names for CK's element types, layouts and pipeline versions.
//
// They stand in the global namespace under the names that AITER's sources give them
// (csrc/ck_gemm_moe_2stages_codegen/gemm_moe_ck2stages.h, commit 9bab8388): a kernel's symbol
// spells its template arguments, and only with the same names is it the same symbol.
#pragma once

#include "ck/ck.hpp"
#include "ck/tensor_operation/gpu/device/gemm_specialization.hpp"
#include "ck/tensor_operation/gpu/device/tensor_layout.hpp"
#include "ck/tensor_operation/gpu/element/unary_element_wise_operation.hpp"
#include "ck/utility/blkgemmpipe_scheduler.hpp"
#include "ck/utility/data_type.hpp"
#include "ck/utility/sequence.hpp"
#include "ck/utility/tuple.hpp"

using I4    = ck::pk_i4_t;
using I8    = int8_t;
using I32   = int;
using F16   = ck::half_t;
using B16   = ck::bhalf_t;
using F8    = ck::f8_t;
using F32   = float;
using FP4X2 = ck::f4x2_pk_t;
using E8M0  = ck::e8m0_bexp_t;

namespace jitcache {

using Row         = ck::tensor_layout::gemm::RowMajor;
using Col         = ck::tensor_layout::gemm::ColumnMajor;
using PassThrough = ck::tensor_operation::element_wise::PassThrough;

template <ck::index_t... Is>
using S = ck::Sequence<Is...>;

inline constexpr auto pipeline_v1 = ck::BlockGemmPipelineVersion::v1;
inline constexpr auto pipeline_v3 = ck::BlockGemmPipelineVersion::v3;
inline constexpr auto gemm_default =
    ck::tensor_operation::device::GemmSpecialization::Default;
inline constexpr auto intrawave = ck::BlockGemmPipelineScheduler::Intrawave;

} // namespace jitcache
