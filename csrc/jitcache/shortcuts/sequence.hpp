// SPDX-License-Identifier: MIT
// CK's algebra of integer sequences without recursion.
//
// CK sorts, inverts and concatenates sequences by recursive templates, one class per step. These
// specialisations give the same types by pack expansion. They are constrained by `requires true`
// where the arguments are those of the primary template: that makes them the more specialised.
#pragma once

#include "ck/utility/sequence.hpp"

namespace jitcache::shortcut {

// Whether the values are 0 ... n-1 in some order: n values that cover n places are distinct.
template <ck::index_t... Values>
constexpr bool is_permutation()
{
    constexpr int size = sizeof...(Values);
    if constexpr(size == 0)
        return true;
    else
        return ((Values >= 0 && Values < size ? 1ull << Values : 0ull) | ...) ==
               (~0ull >> (64 - size));
}

// The last place of a value in a list, or 0.
template <ck::index_t Value, ck::index_t... Values>
constexpr ck::index_t place_of()
{
    ck::index_t place = 0, found = 0;
    ((found = Values == Value ? place : found, ++place), ...);
    return found;
}

template <typename Map, typename Indices>
struct Inverse;

template <ck::index_t... Values, ck::index_t... Is>
struct Inverse<ck::Sequence<Values...>, ck::Sequence<Is...>>
{
    using type = ck::Sequence<place_of<Is, Values...>()...>;
};

template <int Size>
struct Sorted
{
    ck::index_t values[Size + 1] = {};
    int size                     = 0;
};

// The distinct values in ascending order.
template <ck::index_t... Values>
constexpr auto unique_sorted()
{
    Sorted<sizeof...(Values)> sorted{};
    for(const ck::index_t value : {Values...})
    {
        int at = 0;
        while(at < sorted.size && sorted.values[at] < value)
            ++at;
        if(at < sorted.size && sorted.values[at] == value)
            continue;
        for(int i = sorted.size; i > at; --i)
            sorted.values[i] = sorted.values[i - 1];
        sorted.values[at] = value;
        ++sorted.size;
    }
    return sorted;
}

template <typename Values, typename Indices>
struct UniqueSorted;

template <ck::index_t... Values, ck::index_t... Is>
struct UniqueSorted<ck::Sequence<Values...>, ck::Sequence<Is...>>
{
    using type = ck::Sequence<unique_sorted<Values...>().values[Is]...>;
};

template <typename F, typename Indices>
struct Generated;

template <typename F, ck::index_t... Is>
struct Generated<F, ck::Sequence<Is...>>
{
    using type = ck::Sequence<F{}(ck::Number<Is>{})...>;
};

} // namespace jitcache::shortcut

namespace ck {

template <index_t... Values>
    requires(sizeof...(Values) <= 64)
struct is_valid_sequence_map<Sequence<Values...>>
    : bool_constant<jitcache::shortcut::is_permutation<Values...>()>
{
};

template <index_t... Values>
struct sequence_map_inverse<Sequence<Values...>>
{
    using type = typename jitcache::shortcut::
        Inverse<Sequence<Values...>, make_index_sequence<sizeof...(Values)>>::type;
};

// CK's own also tells where each value was; nothing in CK asks for that.
template <index_t First, index_t... Values>
struct sequence_unique_sort<Sequence<First, Values...>, math::less<index_t>, math::equal<index_t>>
{
    using type = typename jitcache::shortcut::UniqueSorted<
        Sequence<First, Values...>,
        make_index_sequence<jitcache::shortcut::unique_sorted<First, Values...>().size>>::type;
};

// As CK asks for them: `decltype` of a constexpr sequence is const.
template <index_t... Values>
struct is_valid_sequence_map<const Sequence<Values...>>
    : is_valid_sequence_map<Sequence<Values...>>
{
};

template <index_t First, index_t... Values>
struct sequence_unique_sort<const Sequence<First, Values...>,
                            math::less<index_t>,
                            math::equal<index_t>>
    : sequence_unique_sort<Sequence<First, Values...>, math::less<index_t>, math::equal<index_t>>
{
};

template <index_t Size, typename F>
    requires true
struct sequence_gen<Size, F>
{
    using type = typename jitcache::shortcut::Generated<F, make_index_sequence<Size>>::type;
};

template <index_t... Xs, index_t... Ys, index_t... Zs, typename... Rest>
struct sequence_merge<Sequence<Xs...>, Sequence<Ys...>, Sequence<Zs...>, Rest...>
{
    using type = typename sequence_merge<Sequence<Xs..., Ys..., Zs...>, Rest...>::type;
};

} // namespace ck
