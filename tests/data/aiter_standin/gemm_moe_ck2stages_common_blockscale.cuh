// Stand-in: kernels of this header know its name.
#pragma once
#define STANDIN_HEADER "common_blockscale"
#include "kernels.h"
