// Stand-in: kernels of this header know its name.
#pragma once
#define STANDIN_HEADER "common_mxfp4_bns"
#include "kernels.h"
