// camring.hpp: what it promises besides camring.h. Reads lines from stdin to know when the writer has published.
#ifdef WITH_OPENCV
#include <opencv2/core.hpp>
#endif

#include <camring.hpp>

#include "check.h"

#include <cstring>
#include <type_traits>

static_assert(!std::is_copy_constructible_v<camring::Ring> && std::is_nothrow_move_constructible_v<camring::Ring>);
static_assert(!std::is_copy_assignable_v<camring::Frame> && std::is_nothrow_move_assignable_v<camring::Frame>);
static_assert(!std::is_copy_constructible_v<camring::Lease> && std::is_nothrow_move_assignable_v<camring::Lease>);

/// Tells the test that this program is ready for the next step, and waits for it.
static void step(const char *what)
{
    std::puts(what);
    std::fflush(stdout);
    CHECK(std::getchar() == '\n');
}

static void errors_are_exceptions_with_the_whole_sentence()
{
    try {
        camring::Ring attic("attic", camring::Timeout(0));
        CHECK(false);
    } catch (const camring::Error &error) {
        CHECK(error.code() == CAMRING_ERROR_NOT_FOUND);
        CHECK(std::strstr(error.what(), "no ring \"attic\": looked for ") != nullptr);
    }
}

static void points_lead_back_to_the_cameras_picture()
{
    camring_frame frame = {};
    // 1920x1080 letterboxed into 640x640, and then only the part from 960 columns on.
    frame.scale_x = frame.scale_y = 1.0f / 3;
    frame.offset_y = 140;
    const auto [x, y] = camring::to_source(frame, 320, 320);
    CHECK(x > 959.99 && x < 960.01 && y > 539.99 && y < 540.01);
    frame.offset_x = -320;
    CHECK(camring::to_source(frame, 0, 140).first > 959.99);
    frame.scale_x = 0;
    try {
        camring::to_source(frame, 0, 0);
        CHECK(false);
    } catch (const std::invalid_argument &error) {
        CHECK(std::string(error.what()) == "frame 0 says no scale, so there is no way back");
    }
}

static void frames_keep_their_pixels_and_grow(const camring::Ring &ring)
{
    using namespace std::chrono_literals;
    camring::Frame frame;
    CHECK(frame.data() == nullptr && frame.size() == 0);
    CHECK(ring.next(frame, 10s));
    CHECK(frame->seq == 1 && frame->width == 8 && frame.size() == 96 && is_whole(&*frame));
    CHECK(!ring.next(frame, 1ms));
    const std::uint8_t *first = frame.data();
    ring.latest(frame);
    CHECK(frame->seq == 1 && frame.data() == first);
    step("larger");
    CHECK(ring.next(frame));
    CHECK(frame->seq == 2 && frame->width == 64 && frame.size() == 64 * 48 * 3 && is_whole(&*frame));
    step("smaller");
    CHECK(ring.next(frame, 0s));
    CHECK(frame->seq == 3 && frame->width == 7 && frame->height == 5 && is_whole(&*frame));
#ifdef WITH_OPENCV
    cv::Mat mat = frame.mat();
    CHECK(mat.rows == 5 && mat.cols == 7 && mat.type() == CV_8UC3 && mat.step[0] == 21);
    CHECK(mat.data == frame.data());
    mat.setTo(cv::Scalar(1, 2, 3));
    CHECK(frame.data()[0] == 1 && frame.data()[5 * 21 - 1] == 3);
    try {
        frame.mat(1);
        CHECK(false);
    } catch (const std::invalid_argument &error) {
        CHECK(std::string(error.what()) == "the frame of format 1 has no plane 1 that a cv::Mat can show");
    }
#endif
    camring::Frame other = std::move(frame);
    CHECK(other->seq == 3 && other.size() == 105);
    CHECK(frame.data() == nullptr && frame->seq == 0);
    frame = std::move(other);
    CHECK(frame->seq == 3 && other.data() == nullptr);
}

static void leases_end_with_their_scope_or_by_release(const camring::Ring &ring)
{
    camring::Lease lease = ring.lease();
    CHECK(lease->seq == 3 && is_whole(&*lease) && lease.valid());
#ifdef WITH_OPENCV
    cv::Mat mat = lease.mat();
    CHECK(mat.data == lease.data() && mat.rows == 5 && mat.cols == 7);
    CHECK(cv::sum(mat)[0] > 0);
#endif
    camring::Lease moved = std::move(lease);
    CHECK(moved.valid());
    {
        camring::Lease dropped = ring.lease();
        dropped = std::move(moved);
        CHECK(dropped.valid() && dropped.release() && dropped.data() == nullptr);
    }
    camring::Lease last = ring.lease();
    camring::Lease *pointer = &last;
    last = std::move(*pointer);
    CHECK(last.valid());
    step("lap");
    // Every slot but one was leased by nobody else, so the lease stood.
    CHECK(last.release());
    try {
        last.release();
        CHECK(false);
    } catch (const camring::Error &error) {
        CHECK(error.code() == CAMRING_ERROR_ARGUMENT);
    }
}

int main()
try {
    using namespace std::chrono_literals;
    errors_are_exceptions_with_the_whole_sentence();
    points_lead_back_to_the_cameras_picture();
    camring::Ring ring("yard");
    CHECK(std::strcmp(ring.info().camera, "yard") == 0);
    CHECK(!ring.wait(0s));
    CHECK(camring::wait_any({&ring}, 1ms).empty());
    step("first");
    CHECK(ring.wait(10s));
    CHECK(camring::wait_any({&ring, &ring}) == (std::vector<std::size_t>{0, 1}));
    camring::Ring moved = std::move(ring);
    frames_keep_their_pixels_and_grow(moved);
    leases_end_with_their_scope_or_by_release(moved);
    ring = std::move(moved);
    CHECK(ring.info().frames >= 3);
    std::puts("done");
} catch (const std::exception &error) {
    std::fprintf(stderr, "wrapper: %s\n", error.what());
    return 1;
}
