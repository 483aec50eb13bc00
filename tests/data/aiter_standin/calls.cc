// Calls a blob directory as AITER's entry point does: by name first, else by shape. One call
// per line of standard input:
//   stage block_m inter_dim x w y act_op quant routed shuffled name
// with types as numbers of at::ScalarType and "-" for no name. Prints one line per call: the
// kernel, or "error " and the message; a name that the table lacks is marked "not found ".
#include "gemm_moe_ck2stages_lookup.h"
#include "gemm_moe_ck2stages.h"
#include "ck2stages_moe_stage1_heuristic_dispatch.hpp"
#include "ck2stages_moe_stage2_heuristic_dispatch.hpp"

#ifdef STANDIN_WITHOUT_INSTANCES
#define STANDIN_HEADER "any"
#include "kernels.h"
#endif

#include <iostream>
#include <unordered_map>

using MoeKernelMap = std::unordered_map<std::string, MoeKernel>;

int main()
{
    static const auto lookup = [] { return MoeKernelMap{GENERATE_LOOKUP_TABLE()}; }();

    int stage, block_m, inter_dim, x, w, y, act, quant;
    bool routed, shuffled;
    std::string name;
    while(std::cin >> stage >> block_m >> inter_dim >> x >> w >> y >> act >> quant >> routed >>
          shuffled >> name)
    {
        std::string who;
        try
        {
            MoeKernel kernel;
            if(auto it = lookup.find(name); it != lookup.end())
                kernel = it->second;
            else
            {
                if(name != "-")
                    std::cout << "not found ";
                const auto dispatch =
                    stage == 1 ? moe_stage1_heuristic_dispatch : moe_stage2_heuristic_dispatch;
                kernel = dispatch(block_m, inter_dim, at::ScalarType(x), at::ScalarType(w),
                                  at::ScalarType(y), act, quant, routed, shuffled);
            }
            kernel(who);
            std::cout << who << '\n';
        }
        catch(const std::exception& e)
        {
            std::cout << "error " << e.what() << '\n';
        }
    }
}
