// SPDX-License-Identifier: MIT
// Stand-in for rocThrust's complex numbers, so that torch's CPU headers can be read by a HIP
// compile without ROCm. Torch only names these in inline functions that no CK instance calls;
// the functions here return something of the right type and compute nothing.
#pragma once

namespace thrust {

template <typename T>
struct complex
{
    T re, im;
    __host__ __device__ constexpr complex(T r = T(), T i = T()) : re(r), im(i) {}
    __host__ __device__ constexpr T real() const { return re; }
    __host__ __device__ constexpr T imag() const { return im; }
};

template <typename T>
__host__ __device__ T abs(const complex<T>& z)
{
    return z.re;
}
template <typename T>
__host__ __device__ T arg(const complex<T>& z)
{
    return z.re;
}
template <typename T>
__host__ __device__ complex<T> polar(T r, T)
{
    return {r};
}

#define JITCACHE_STANDIN(NAME)                           \
    template <typename T>                                \
    __host__ __device__ complex<T> NAME(const complex<T>& z) \
    {                                                    \
        return z;                                        \
    }
JITCACHE_STANDIN(proj)
JITCACHE_STANDIN(exp)
JITCACHE_STANDIN(log)
JITCACHE_STANDIN(log2)
JITCACHE_STANDIN(log10)
JITCACHE_STANDIN(log1p)
JITCACHE_STANDIN(expm1)
JITCACHE_STANDIN(sqrt)
JITCACHE_STANDIN(sin)
JITCACHE_STANDIN(cos)
JITCACHE_STANDIN(tan)
JITCACHE_STANDIN(asin)
JITCACHE_STANDIN(acos)
JITCACHE_STANDIN(atan)
JITCACHE_STANDIN(sinh)
JITCACHE_STANDIN(cosh)
JITCACHE_STANDIN(tanh)
JITCACHE_STANDIN(asinh)
JITCACHE_STANDIN(acosh)
JITCACHE_STANDIN(atanh)
#undef JITCACHE_STANDIN

template <typename T, typename U>
__host__ __device__ complex<T> pow(const complex<T>& z, const U&)
{
    return z;
}
template <typename T>
__host__ __device__ complex<T> pow(const T& x, const complex<T>&)
{
    return {x};
}

} // namespace thrust
