// SPDX-License-Identifier: MIT
// CK's descriptor of a tensor with known lengths and strides, without searching and coordinates.
//
// CK finds a length by searching the graph of transforms, and an offset by walking it through
// tuples of hidden indices. For the descriptors that `make_naive_tensor_descriptor` and
// `make_naive_tensor_descriptor_packed` give for compile-time lengths, both follow from the type.
// Offsets that the compiler computes itself are a sum of products here; what is left to run time
// still goes CK's way, so that the code that is generated stays the same.
#pragma once

#include "jitcache/shortcuts/sequence.hpp"

#include "ck/tensor_description/tensor_descriptor.hpp"

namespace jitcache::shortcut {

template <typename T>
__host__ __device__ constexpr ck::index_t integer(const T& value)
{
    if constexpr(ck::is_known_at_compile_time<T>::value)
        return T::value;
    else
        return value;
}

// A tuple's element, fetched without the chain of calls of Tuple::At.
template <ck::index_t I, typename T>
__host__ __device__ constexpr const T&
element(const ck::detail::TupleElementKeyData<ck::detail::TupleElementKey<I>, T>& holder)
{
    return holder.mData;
}

template <typename Lengths, typename Indices>
struct PackedStrides;

template <ck::index_t... Lengths, ck::index_t... Is>
struct PackedStrides<ck::Sequence<Lengths...>, ck::Sequence<Is...>>
{
    static constexpr ck::index_t stride(ck::index_t of)
    {
        ck::index_t product = 1, at = 0;
        ((product *= at++ > of ? Lengths : 1), ...);
        return product;
    }
    using type = ck::Sequence<stride(Is)...>;
};

// What the two specialisations of TensorDescriptor below share. All of its interface is CK's.
template <typename Descriptor,
          typename Transform,
          typename Lengths,
          typename Strides,
          typename Visible,
          typename Space>
struct NaiveDescriptor;

template <typename Descriptor,
          typename Transform,
          ck::index_t... Lengths,
          ck::index_t... Strides,
          ck::index_t... Visible,
          typename Space>
struct NaiveDescriptor<Descriptor,
                       Transform,
                       ck::Sequence<Lengths...>,
                       ck::Sequence<Strides...>,
                       ck::Sequence<Visible...>,
                       Space>
{
    using Transforms          = ck::Tuple<Transform>;
    using LowerDimensionIdss  = ck::Tuple<ck::Sequence<0>>;
    using UpperDimensionIdss  = ck::Tuple<ck::Sequence<Visible...>>;
    using VisibleDimensionIds = ck::Sequence<Visible...>;

    constexpr static ck::index_t ntransform_   = 1;
    constexpr static ck::index_t ndim_visible_ = sizeof...(Lengths);
    constexpr static ck::index_t ndim_hidden_  = ndim_visible_ + 1;

    using VisibleIndex = ck::MultiIndex<ndim_visible_>;
    using HiddenIndex  = ck::MultiIndex<ndim_hidden_>;
    using Coordinate   = ck::TensorCoordinate<ndim_hidden_, VisibleDimensionIds>;
    using ElementSize  = ck::Number<(Lengths * ... * 1)>;

    __host__ __device__ constexpr NaiveDescriptor()
        : transforms_{}, element_size_{}, element_space_size_{}
    {
    }

    __host__ __device__ constexpr NaiveDescriptor(const Transforms& transforms, Space space)
        : transforms_{transforms}, element_size_{}, element_space_size_{space}
    {
    }

    __host__ __device__ static constexpr ck::index_t GetNumOfTransform() { return 1; }
    __host__ __device__ static constexpr ck::index_t GetNumOfVisibleDimension()
    {
        return ndim_visible_;
    }
    __host__ __device__ static constexpr ck::index_t GetNumOfHiddenDimension()
    {
        return ndim_hidden_;
    }
    __host__ __device__ static constexpr ck::index_t GetNumOfDimension() { return ndim_visible_; }

    template <ck::index_t I>
    __host__ __device__ constexpr auto GetLength(ck::Number<I>) const
    {
        static_assert(I >= 0 && I < ndim_visible_, "no such dimension");
        return ck::Sequence<Lengths...>::At(ck::Number<I>{});
    }
    __host__ __device__ constexpr auto GetLengths() const { return ck::Sequence<Lengths...>{}; }
    __host__ __device__ constexpr auto GetElementSize() const { return element_size_; }
    __host__ __device__ constexpr auto GetElementSpaceSize() const { return element_space_size_; }

    template <typename Idx>
    __host__ __device__ constexpr ck::index_t CalculateOffset(const Idx& idx) const
    {
        static_assert(Idx::Size() == ndim_visible_, "as many indices as dimensions are needed");
        if(__builtin_is_constant_evaluated())
            return offset(idx, ck::make_index_sequence<ndim_visible_>{});
        else
            return make_tensor_coordinate(static_cast<const Descriptor&>(*this), idx).GetOffset();
    }

    __host__ __device__ constexpr const auto& GetTransforms() const { return transforms_; }
    __host__ __device__ static constexpr auto GetLowerDimensionIdss()
    {
        return LowerDimensionIdss{};
    }
    __host__ __device__ static constexpr auto GetUpperDimensionIdss()
    {
        return UpperDimensionIdss{};
    }
    __host__ __device__ static constexpr auto GetVisibleDimensionIds()
    {
        return VisibleDimensionIds{};
    }
    __host__ __device__ static constexpr bool IsKnownAtCompileTime()
    {
        return ck::is_known_at_compile_time<Space>::value;
    }

    Transforms transforms_;
    ElementSize element_size_;
    Space element_space_size_;

    private:
    template <typename Idx, ck::index_t... Is>
    __host__ __device__ static constexpr ck::index_t offset(const Idx& idx, ck::Sequence<Is...>)
    {
        return ((integer(element<Is>(idx)) * Strides) + ... + 0);
    }
};

} // namespace jitcache::shortcut

namespace ck {

// make_naive_tensor_descriptor_packed
template <index_t... Lengths, bool Use24Bit, index_t First, index_t... Visible, typename Space>
    requires(First == 1)
struct TensorDescriptor<Tuple<UnMerge<Tuple<Number<Lengths>...>, Use24Bit>>,
                        Tuple<Sequence<0>>,
                        Tuple<Sequence<First, Visible...>>,
                        Sequence<First, Visible...>,
                        Space>
    : jitcache::shortcut::NaiveDescriptor<
          TensorDescriptor<Tuple<UnMerge<Tuple<Number<Lengths>...>, Use24Bit>>,
                           Tuple<Sequence<0>>,
                           Tuple<Sequence<First, Visible...>>,
                           Sequence<First, Visible...>,
                           Space>,
          UnMerge<Tuple<Number<Lengths>...>, Use24Bit>,
          Sequence<Lengths...>,
          typename jitcache::shortcut::
              PackedStrides<Sequence<Lengths...>, make_index_sequence<sizeof...(Lengths)>>::type,
          Sequence<First, Visible...>,
          Space>
{
    using Naive = typename TensorDescriptor::NaiveDescriptor;
    using Naive::Naive;
};

// make_naive_tensor_descriptor
template <index_t... Lengths, index_t... Strides, index_t First, index_t... Visible, typename Space>
    requires(First == 1)
struct TensorDescriptor<Tuple<Embed<Tuple<Number<Lengths>...>, Tuple<Number<Strides>...>, false>>,
                        Tuple<Sequence<0>>,
                        Tuple<Sequence<First, Visible...>>,
                        Sequence<First, Visible...>,
                        Space>
    : jitcache::shortcut::NaiveDescriptor<
          TensorDescriptor<Tuple<Embed<Tuple<Number<Lengths>...>, Tuple<Number<Strides>...>, false>>,
                           Tuple<Sequence<0>>,
                           Tuple<Sequence<First, Visible...>>,
                           Sequence<First, Visible...>,
                           Space>,
          Embed<Tuple<Number<Lengths>...>, Tuple<Number<Strides>...>, false>,
          Sequence<Lengths...>,
          Sequence<Strides...>,
          Sequence<First, Visible...>,
          Space>
{
    using Naive = typename TensorDescriptor::NaiveDescriptor;
    using Naive::Naive;
};

} // namespace ck
