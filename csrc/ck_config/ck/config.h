// The configuration header that CK's CMake build would generate, for a CK checkout that was
// never configured: every data type enabled, architecture switches left to CK's headers.
// The same settings as the ck_helper/ck/config.h that AITER builds with.
#pragma once

#define CK_ENABLE_INT8 ON
#define CK_ENABLE_FP8 ON
#define CK_ENABLE_BF8 ON
#define CK_ENABLE_FP16 ON
#define CK_ENABLE_BF16 ON
#define CK_ENABLE_FP32 ON
#define CK_ENABLE_FP64 ON
#define CK_ENABLE_DL_KERNELS ON
#define CK_ENABLE_DPP_KERNELS ON
