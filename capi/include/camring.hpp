/// camring.hpp: camring.h for C++17. Everything is freed by itself, errors are exceptions with the whole sentence.
///
///     camring::Ring ring("front");
///     camring::Frame frame;
///     while (ring.next(frame, 10s))
///         use(frame->seq, frame.data(), frame->width, frame->height);
///
/// Include OpenCV first (or define CAMRING_WITH_OPENCV) and frames have mat(). Every class can be moved, none copied.
/// A Ring may be used by several threads; a Frame and a Lease by one at a time.
#ifndef CAMRING_HPP
#define CAMRING_HPP

#include "camring.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if defined(CAMRING_WITH_OPENCV)
#include <opencv2/core.hpp>
#endif
#if defined(CAMRING_WITH_OPENCV) || defined(OPENCV_CORE_HPP)
#define CAMRING_HAS_OPENCV 1
#endif

namespace camring {

/// A call of the library failed; what() is the whole sentence, code() the enum camring_error.
class Error : public std::runtime_error {
public:
    explicit Error(int code) : std::runtime_error(camring_strerror(code)), code_(code) {}
    int code() const noexcept { return code_; }

private:
    int code_;
};

/// How long to wait; a negative time is for ever.
using Timeout = std::chrono::nanoseconds;
inline constexpr Timeout forever{CAMRING_FOREVER};

namespace detail {

inline void check(int code)
{
    if (code != CAMRING_OK)
        throw Error(code);
}

inline std::int64_t ns(Timeout timeout) { return timeout < Timeout::zero() ? CAMRING_FOREVER : timeout.count(); }

inline camring_frame empty_frame()
{
    camring_frame frame;
    std::memset(&frame, 0, sizeof frame);
    frame.struct_size = sizeof frame;
    return frame;
}

#if defined(CAMRING_HAS_OPENCV)
/// The OpenCV type of a plane; -1 for a plane that the format does not have.
inline int plane_type(const camring_frame &frame, unsigned plane)
{
    if (plane >= frame.plane_count)
        return -1;
    switch (frame.pixfmt) {
    case CAMRING_PIXFMT_BGR:
    case CAMRING_PIXFMT_RGB:
        return CV_8UC3;
    case CAMRING_PIXFMT_BGRA:
    case CAMRING_PIXFMT_RGBA:
        return CV_8UC4;
    case CAMRING_PIXFMT_GRAY:
    case CAMRING_PIXFMT_I420:
        return CV_8UC1;
    case CAMRING_PIXFMT_NV12:
        return plane == 0 ? CV_8UC1 : CV_8UC2;
    case CAMRING_PIXFMT_RGB_PLANAR_F32:
        return CV_32FC1;
    default:
        return -1;
    }
}

/// A plane of a frame as a Mat over the same memory.
inline cv::Mat mat(const camring_frame &frame, unsigned plane)
{
    const int type = plane_type(frame, plane);
    if (frame.payload == nullptr || type < 0)
        throw std::invalid_argument("the frame of format " + std::to_string(frame.pixfmt) + " has no plane " +
                                    std::to_string(plane) + " that a cv::Mat can show");
    const bool halved = plane > 0 && frame.pixfmt != CAMRING_PIXFMT_RGB_PLANAR_F32;
    const auto side = [halved](std::uint32_t pixels) { return static_cast<int>(halved ? (pixels + 1) / 2 : pixels); };
    // A Mat has no read-only form; the memory of a lease is read-only all the same.
    auto *first = const_cast<std::uint8_t *>(frame.payload) + frame.plane_offset[plane];
    return cv::Mat(side(frame.height), side(frame.width), type, first, frame.plane_stride[plane]);
}
#endif

} // namespace detail

/// Where the point (x, y) of a frame lies in the camera's own picture: undoes region, crop, letterbox and scale. Points are
/// counted from the top left corner: the middle of the first pixel is (0.5, 0.5).
inline std::pair<double, double> to_source(const camring_frame &frame, double x, double y)
{
    std::pair<double, double> source;
    if (camring_to_source(&frame, x, y, &source.first, &source.second) != 0)
        throw std::invalid_argument("frame " + std::to_string(frame.seq) + " says no scale, so there is no way back");
    return source;
}

/// A copied frame: its description through ->, and pixels of its own, kept from read to read.
class Frame {
public:
    Frame() : meta_(detail::empty_frame()) {}
    Frame(Frame &&other) noexcept
        : meta_(std::exchange(other.meta_, detail::empty_frame())), pixels_(std::move(other.pixels_)),
          capacity_(std::exchange(other.capacity_, 0))
    {
    }
    Frame &operator=(Frame &&other) noexcept
    {
        meta_ = std::exchange(other.meta_, detail::empty_frame());
        pixels_ = std::move(other.pixels_);
        capacity_ = std::exchange(other.capacity_, 0);
        return *this;
    }

    const camring_frame *operator->() const noexcept { return &meta_; }
    const camring_frame &operator*() const noexcept { return meta_; }
    /// The pixels; nullptr before the first read.
    std::uint8_t *data() noexcept { return meta_.payload == nullptr ? nullptr : pixels_.get(); }
    const std::uint8_t *data() const noexcept { return meta_.payload; }
    std::size_t size() const noexcept { return static_cast<std::size_t>(meta_.payload_bytes); }

#if defined(CAMRING_HAS_OPENCV)
    /// A plane as a Mat over this frame's own memory: valid until the next read into it, and may be drawn on.
    cv::Mat mat(unsigned plane = 0) & { return detail::mat(meta_, plane); }
#endif

private:
    friend class Ring;

    /// Room for the frame that meta_ describes; what was there is lost.
    void grow()
    {
        meta_.payload = nullptr;
        capacity_ = 0;
        // Not a vector: its zeroes would be written only to be overwritten.
        pixels_.reset(new std::uint8_t[size()]);
        capacity_ = size();
    }

    camring_frame meta_;
    std::unique_ptr<std::uint8_t[]> pixels_;
    std::size_t capacity_ = 0;
};

/// A frame read in place; ends with release(), or unheard when it goes out of scope.
class Lease {
public:
    Lease(Lease &&other) noexcept : meta_(other.meta_), lease_(std::exchange(other.lease_, nullptr)) {}
    Lease &operator=(Lease &&other) noexcept
    {
        if (this != &other) {
            end();
            meta_ = other.meta_;
            lease_ = std::exchange(other.lease_, nullptr);
        }
        return *this;
    }
    ~Lease() { end(); }

    const camring_frame *operator->() const noexcept { return &meta_; }
    const camring_frame &operator*() const noexcept { return meta_; }
    /// The pixels, read-only; nullptr once released.
    const std::uint8_t *data() const noexcept { return meta_.payload; }
    std::size_t size() const noexcept { return static_cast<std::size_t>(meta_.payload_bytes); }

    /// Whether the frame has been constant so far.
    bool valid() const { return verdict(camring_valid(lease_)); }

    /// Ends the lease: true if the frame was constant throughout; false: discard what was made of it.
    bool release()
    {
        meta_.payload = nullptr;
        return verdict(camring_release(std::exchange(lease_, nullptr)));
    }

#if defined(CAMRING_HAS_OPENCV)
    /// A plane as a Mat over the ring's memory, without a copy: valid until release(); writing into it ends the program.
    cv::Mat mat(unsigned plane = 0) const & { return detail::mat(meta_, plane); }
    /// Not `ring.lease().mat()`: that lease would be over before the Mat is used.
    cv::Mat mat(unsigned plane = 0) const && = delete;
#endif

private:
    friend class Ring;

    explicit Lease(const camring_ring *ring) : meta_(detail::empty_frame())
    {
        detail::check(camring_lease(ring, &meta_, &lease_));
    }

    static bool verdict(int code)
    {
        if (code == CAMRING_ERROR_REVOKED)
            return false;
        detail::check(code);
        return true;
    }

    void end() noexcept
    {
        if (lease_ != nullptr)
            camring_release(std::exchange(lease_, nullptr));
    }

    camring_frame meta_;
    camring_frame_lease *lease_ = nullptr;
};

/// A ring by name: attaches when made, follows restarts and new generations by itself, detaches when it goes.
class Ring {
public:
    explicit Ring(const std::string &name, Timeout timeout = std::chrono::seconds(10),
                  const camring_options *options = nullptr)
    {
        detail::check(camring_attach(name.c_str(), detail::ns(timeout), options, &ring_));
    }
    Ring(Ring &&other) noexcept : ring_(std::exchange(other.ring_, nullptr)) {}
    Ring &operator=(Ring &&other) noexcept
    {
        std::swap(ring_, other.ring_);
        return *this;
    }
    ~Ring()
    {
        if (ring_ != nullptr)
            camring_detach(ring_);
    }

    /// Copies the newest frame, the same again when there is no newer one.
    void latest(Frame &frame) const
    {
        detail::check(read(frame, [&] { return camring_latest(ring_, room(frame), frame.capacity_, &frame.meta_); }));
    }

    /// Copies the newest frame not returned yet, waiting for it; false = none came in time.
    bool next(Frame &frame, Timeout timeout = forever) const
    {
        const auto until = std::chrono::steady_clock::now() + (timeout < Timeout::zero() ? Timeout::zero() : timeout);
        return came(read(frame, [&] {
            const auto left = until - std::chrono::steady_clock::now();
            const std::int64_t ns = timeout < Timeout::zero() ? CAMRING_FOREVER : left.count() > 0 ? left.count() : 0;
            return camring_next(ring_, room(frame), frame.capacity_, ns, &frame.meta_);
        }));
    }

    /// Leases the newest frame: nothing is copied.
    Lease lease() const { return Lease(ring_); }

    /// Sleeps until there is a frame not returned yet; false = none came in time.
    bool wait(Timeout timeout = forever) const { return came(camring_wait(ring_, detail::ns(timeout))); }

    /// What the camera, its daemon and this handle are doing.
    camring_ring_info info() const
    {
        camring_ring_info info;
        std::memset(&info, 0, sizeof info);
        info.struct_size = sizeof info;
        detail::check(camring_info(ring_, &info));
        return info;
    }

    /// The handle, for calls of camring.h; this object keeps it.
    camring_ring *get() const noexcept { return ring_; }

private:
    /// A buffer that is never NULL: with NULL, a read only describes the frame.
    static std::uint8_t *room(Frame &frame)
    {
        static std::uint8_t none;
        return frame.pixels_ ? frame.pixels_.get() : &none;
    }

    /// Repeats a read with a larger buffer when the frame needs one.
    template <class Read> static int read(Frame &frame, Read call)
    {
        int code = call();
        for (int tries = 0; code == CAMRING_ERROR_BUFFER_SIZE && tries < 8; tries++) {
            frame.grow();
            code = call();
        }
        return code;
    }

    static bool came(int code)
    {
        if (code == CAMRING_ERROR_TIMEOUT)
            return false;
        detail::check(code);
        return true;
    }

    camring_ring *ring_ = nullptr;
};

/// Sleeps until at least one of the rings has a frame not returned yet; their places. Empty = none came in time.
inline std::vector<std::size_t> wait_any(std::initializer_list<const Ring *> rings, Timeout timeout = forever)
{
    std::vector<camring_ring *> handles;
    for (const Ring *ring : rings)
        handles.push_back(ring->get());
    std::vector<std::size_t> ready(handles.size());
    std::size_t count = 0;
    const int code = camring_wait_any(handles.data(), handles.size(), detail::ns(timeout), ready.data(), &count);
    if (code != CAMRING_ERROR_TIMEOUT)
        detail::check(code);
    ready.resize(count);
    return ready;
}

} // namespace camring

#endif // CAMRING_HPP
