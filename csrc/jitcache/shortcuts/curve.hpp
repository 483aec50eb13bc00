// SPDX-License-Identifier: MIT
// CK's space-filling curve, computed with arrays of integers.
//
// CK computes each digit of each step with nested generic lambdas. Here a step is one constexpr
// function of its number; the types handed out are CK's.
#pragma once

#include "jitcache/shortcuts/sequence.hpp"

// First, because CK's other headers don't name all that they need.
#include "ck/utility/common_header.hpp"

#include "ck/tensor_description/tensor_space_filling_curve.hpp"

namespace jitcache::shortcut {

template <ck::index_t Size>
struct Point
{
    ck::index_t at[Size];
};

// The point that a curve reaches with step `step`, in elements.
//
// lengths: accesses per dimension, slowest dimension of the walk first.
// order: which dimension of the tensor each of these is.
// scalars: elements per access, by dimension of the tensor.
template <ck::index_t Size>
constexpr Point<Size> curve_point(ck::index_t step,
                                  const ck::index_t (&lengths)[Size],
                                  const ck::index_t (&order)[Size],
                                  const ck::index_t (&scalars)[Size],
                                  bool snake)
{
    ck::index_t digits[Size] = {};
    for(ck::index_t i = Size - 1; i >= 0; --i)
    {
        digits[i] = i == 0 ? step : step % lengths[i];
        step /= lengths[i];
    }
    Point<Size> point{};
    ck::index_t steps_before = digits[0];
    for(ck::index_t i = 0; i < Size; ++i)
    {
        // A dimension is walked backwards whenever those outside of it made an odd number of
        // steps; the outermost one is always walked forwards.
        const bool forwards = !snake || i == 0 || steps_before % 2 == 0;
        if(i > 0)
            steps_before = steps_before * lengths[i] + digits[i];
        const ck::index_t place = forwards ? digits[i] : lengths[i] - 1 - digits[i];
        point.at[order[i]]      = place * scalars[order[i]];
    }
    return point;
}

} // namespace jitcache::shortcut

namespace ck {

template <index_t... Lengths, index_t... Order, index_t... Scalars, bool SnakeCurved>
struct SpaceFillingCurve<Sequence<Lengths...>, Sequence<Order...>, Sequence<Scalars...>, SnakeCurved>
{
    static constexpr index_t nDim = sizeof...(Lengths);

    using Index = MultiIndex<nDim>;

    static constexpr index_t ScalarPerVector = (Scalars * ... * 1);

    static constexpr auto access_lengths   = Sequence<(Lengths / Scalars)...>{};
    static constexpr auto dim_access_order = Sequence<Order...>{};
    static constexpr auto ordered_access_lengths =
        Sequence<decltype(access_lengths)::At(Order)...>{};

    static constexpr auto I0 = Number<0>{};
    static constexpr auto I1 = Number<1>{};

    static_assert(((Lengths % Scalars == 0) && ...), "an access can't reach over a border");
    static_assert(is_valid_sequence_map<Sequence<Order...>>::value, "not an order of dimensions");

    __host__ __device__ static constexpr index_t GetNumOfAccess()
    {
        return (Lengths * ... * 1) / ScalarPerVector;
    }

    template <index_t Begin, index_t End>
    __host__ __device__ static constexpr auto GetStepBetween(Number<Begin>, Number<End>)
    {
        constexpr auto from = point(Begin);
        constexpr auto to   = point(End);
        return [&]<index_t... Is>(Sequence<Is...>) {
            return Index{(to.at[Is] - from.at[Is])...};
        }(make_index_sequence<nDim>{});
    }

    template <index_t Access>
    __host__ __device__ static constexpr auto GetForwardStep(Number<Access>)
    {
        return GetStepBetween(Number<Access>{}, Number<Access + 1>{});
    }

    template <index_t Access>
    __host__ __device__ static constexpr auto GetBackwardStep(Number<Access>)
    {
        return GetStepBetween(Number<Access>{}, Number<Access - 1>{});
    }

    template <index_t Access>
    __host__ __device__ static constexpr Index GetIndex(Number<Access>)
    {
        constexpr auto here = point(Access);
        return [&]<index_t... Is>(Sequence<Is...>) {
            return Index{here.at[Is]...};
        }(make_index_sequence<nDim>{});
    }

    template <index_t Access>
    __host__ __device__ static constexpr auto GetIndexTupleOfNumber(Number<Access>)
    {
        constexpr auto here = point(Access);
        return [&]<index_t... Is>(Sequence<Is...>) {
            return Tuple<Number<here.at[Is]>...>{};
        }(make_index_sequence<nDim>{});
    }

    private:
    __host__ __device__ static constexpr jitcache::shortcut::Point<nDim> point(index_t access)
    {
        constexpr index_t order[]   = {Order...};
        constexpr index_t scalars[] = {Scalars...};
        constexpr index_t lengths[] = {decltype(access_lengths)::At(Order)...};
        return jitcache::shortcut::curve_point(access, lengths, order, scalars, SnakeCurved);
    }
};

// As CK asks for it: `decltype` of a constexpr sequence is const.
template <typename Lengths, typename Order, typename Scalars, bool SnakeCurved>
    requires(std::is_const_v<Lengths> || std::is_const_v<Order> || std::is_const_v<Scalars>)
struct SpaceFillingCurve<Lengths, Order, Scalars, SnakeCurved>
    : SpaceFillingCurve<std::remove_const_t<Lengths>,
                        std::remove_const_t<Order>,
                        std::remove_const_t<Scalars>,
                        SnakeCurved>
{
};

} // namespace ck
