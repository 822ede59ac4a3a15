/*
 * camring.h: read the newest frame of a camring ring from C and C++. Link with -lcamring.
 *
 * Made from capi/src by cbindgen; change it there. How to use it: capi/README.md. The words: docs/glossary.md.
 *
 * - Every call that can fail returns CAMRING_OK (0) or a negative enum camring_error; camring_strerror() has the sentence.
 * - Times are ns; *_mono_ns are of CLOCK_MONOTONIC, *_real_ns and *_unix_ns since 1970. Sizes are bytes.
 * - A struct begins with struct_size: set it to sizeof the struct before each use. It tells the library how much of
 *   the struct the program was compiled with, so that structs can grow.
 * - Every function may be called from every thread, also on the same handle at the same time; none from a signal
 *   handler. A handle is a number in disguise, not an address: a detached, released or wrong one is refused.
 * - After fork() the child may use its parent's rings; its parent's leases count as revoked there.
 */

#ifndef CAMRING_H
#define CAMRING_H

#include <stddef.h>
#include <stdint.h>

// A second, for timeouts.
#define CAMRING_SECOND INT64_C(1000000000)

// The call did what it promises.
#define CAMRING_OK 0

// The timeout of a call that waits as long as it takes, or until another thread detaches the ring.
#define CAMRING_FOREVER -1

// `source_unix_ns` of a camera whose clock is not known.
#define CAMRING_NO_TIME INT64_MIN

// Version of this header: major << 16 | minor. A program works with every library of the same major version and the
// same or a later minor one.
#define CAMRING_ABI_VERSION 1

// Most rings of one camring_wait_any().
#define CAMRING_WAIT_MAX 1024

// Why a call failed. camring_strerror() has the sentence.
enum camring_error {
    // An argument that cannot be: a NULL pointer, a negative time, a struct_size that is not set.
    CAMRING_ERROR_ARGUMENT = -1,
    // The handle was never given out, or is detached or released already.
    CAMRING_ERROR_HANDLE = -2,
    // The name is no ring's name.
    CAMRING_ERROR_NAME = -3,
    // There is no such ring.
    CAMRING_ERROR_NOT_FOUND = -4,
    // The ring may not be read by this user.
    CAMRING_ERROR_PERMISSION = -5,
    // The ring belongs to a user whom this one has no reason to trust.
    CAMRING_ERROR_UNTRUSTED = -6,
    // Not a ring, a damaged one, or one of another layout version.
    CAMRING_ERROR_LAYOUT = -7,
    // The name leads to a generation that another one has replaced.
    CAMRING_ERROR_SUPERSEDED = -8,
    // The ring was removed by its operator.
    CAMRING_ERROR_REMOVED = -9,
    // The system refused something.
    CAMRING_ERROR_SYSTEM = -10,
    // Nothing has been published yet.
    CAMRING_ERROR_NO_FRAME = -11,
    // Nothing new came in time.
    CAMRING_ERROR_TIMEOUT = -12,
    // The writer overtook every attempt to read.
    CAMRING_ERROR_OVERRUN = -13,
    // The buffer is smaller than the frame; payload_bytes says what it needs.
    CAMRING_ERROR_BUFFER_SIZE = -14,
    // The frame's format is newer than this library.
    CAMRING_ERROR_UNKNOWN_FORMAT = -15,
    // The segment contradicts itself.
    CAMRING_ERROR_CORRUPT = -16,
    // The writer has overwritten the leased frame: discard what was made of it.
    CAMRING_ERROR_REVOKED = -17,
    // Leases cannot be had here; copies can.
    CAMRING_ERROR_LEASE_UNAVAILABLE = -18,
    // A fault of this library; please report it.
    CAMRING_ERROR_INTERNAL = -19,
};

// How the bytes of a frame are to be read: `pixfmt`.
enum camring_pixfmt {
    // Bytes without a picture meaning.
    CAMRING_PIXFMT_OPAQUE = 0,
    // Blue, green, red; one byte each (OpenCV's order).
    CAMRING_PIXFMT_BGR = 1,
    // Red, green, blue; one byte each.
    CAMRING_PIXFMT_RGB = 2,
    // One byte of luma.
    CAMRING_PIXFMT_GRAY = 3,
    // Planar Y, U, V; chroma halved both ways.
    CAMRING_PIXFMT_I420 = 4,
    // Planar Y and interleaved UV; chroma halved both ways.
    CAMRING_PIXFMT_NV12 = 5,
    // Three planes of native floats; v = byte * value_scale + value_offset.
    CAMRING_PIXFMT_RGB_PLANAR_F32 = 6,
    // Blue, green, red, alpha.
    CAMRING_PIXFMT_BGRA = 7,
    // Red, green, blue, alpha.
    CAMRING_PIXFMT_RGBA = 8,
};

// What a camera's daemon is doing: `state`.
enum camring_state {
    // The daemon has the ring and has not tried the camera yet.
    CAMRING_STATE_STARTING = 0,
    // The camera was never reached so far; trying.
    CAMRING_STATE_CONNECTING = 1,
    // Packets arrive, no picture yet.
    CAMRING_STATE_SYNCING = 2,
    // Frames are published.
    CAMRING_STATE_LIVE = 3,
    // Frames are missing or late; the reason says why.
    CAMRING_STATE_DEGRADED = 4,
    // No frame for too long; the session is being torn down.
    CAMRING_STATE_STALLED = 5,
    // Was live before; trying again.
    CAMRING_STATE_RECONNECTING = 6,
    // Paused on purpose because nobody reads.
    CAMRING_STATE_PARKED = 7,
    // Stopped by the operator.
    CAMRING_STATE_STOPPED = 8,
    // Needs an operator; the reason says why.
    CAMRING_STATE_ERROR = 9,
    // A teardown missed its deadline; the process is being replaced.
    CAMRING_STATE_RESTARTING = 10,
};

// Why a camera is in its state: `reason`.
enum camring_reason {
    // Nothing to say.
    CAMRING_REASON_NONE = 0,
    // The camera's port refused the connection.
    CAMRING_REASON_CONNECT_REFUSED = 1,
    // The camera did not answer in time.
    CAMRING_REASON_CONNECT_TIMEOUT = 2,
    // The camera's host name does not resolve.
    CAMRING_REASON_DNS = 3,
    // The TLS handshake or certificate check failed.
    CAMRING_REASON_TLS = 4,
    // The camera refused user or password.
    CAMRING_REASON_AUTH = 5,
    // The camera has no such stream.
    CAMRING_REASON_NOT_FOUND = 6,
    // Whatever answers does not speak RTSP.
    CAMRING_REASON_NOT_RTSP = 7,
    // The stream has no video.
    CAMRING_REASON_NO_VIDEO = 8,
    // The stream's codec has no decoder here.
    CAMRING_REASON_UNSUPPORTED_CODEC = 9,
    // No keyframe arrived in time.
    CAMRING_REASON_NO_KEYFRAME = 10,
    // Packets stopped arriving.
    CAMRING_REASON_NO_PACKETS = 11,
    // Packets arrive but the decoder gives no picture.
    CAMRING_REASON_DECODER_STUCK = 12,
    // The decoder reported errors.
    CAMRING_REASON_DECODER_ERROR = 13,
    // Pictures are withheld until the next keyframe after a loss.
    CAMRING_REASON_LOSS_GATE = 14,
    // Frames reach the ring too late.
    CAMRING_REASON_LAG = 15,
    // Far fewer frames than usual.
    CAMRING_REASON_LOW_FPS = 16,
    // The camera closed the connection.
    CAMRING_REASON_SERVER_CLOSED = 17,
    // The file or stream ended.
    CAMRING_REASON_END_OF_FILE = 18,
    // The camera has no session left for us.
    CAMRING_REASON_SERVER_BUSY = 19,
    // The memory mount has no room for the ring.
    CAMRING_REASON_NO_ROOM = 20,
    // Another program owns the ring's public name.
    CAMRING_REASON_NAME_TAKEN = 21,
    // The frame is larger than the ring may become.
    CAMRING_REASON_FRAME_TOO_LARGE = 22,
    // The configuration is wrong.
    CAMRING_REASON_CONFIG = 23,
    // A fault of the daemon.
    CAMRING_REASON_INTERNAL = 24,
    // The operator asked for it.
    CAMRING_REASON_OPERATOR = 25,
    // The picture has not changed for too long.
    CAMRING_REASON_FROZEN = 26,
    // The picture is black.
    CAMRING_REASON_BLACK = 27,
    // A planned reconnect.
    CAMRING_REASON_PLANNED = 28,
};

// Facts about one frame: bits of `flags`. Ignore bits that have no name here.
enum camring_flag {
    // Decodable on its own.
    CAMRING_FLAG_KEYFRAME = 1,
    // First frame after a gap in time.
    CAMRING_FLAG_DISCONT = 2,
    // Known to be damaged.
    CAMRING_FLAG_CORRUPT = 4,
    // May show damage concealed by the decoder.
    CAMRING_FLAG_TAINTED = 8,
    // First frame of another size.
    CAMRING_FLAG_GEOMETRY_CHANGED = 16,
    // First frame of another source format.
    CAMRING_FLAG_FORMAT_CHANGED = 32,
    // First frame of a new session with the camera.
    CAMRING_FLAG_AFTER_RECONNECT = 64,
    // First frame of a new daemon on this ring.
    CAMRING_FLAG_AFTER_RESTART = 128,
    // Source pictures are missing before this frame; `gap` counts them.
    CAMRING_FLAG_GAP = 256,
    // Two fields woven into one picture.
    CAMRING_FLAG_INTERLACED = 512,
    // The camera's time is implausible.
    CAMRING_FLAG_UNTRUSTED_TIME = 1024,
    // Not from a camera: a test picture, a file, or a program.
    CAMRING_FLAG_SYNTHETIC = 2048,
    // Scaled to its size.
    CAMRING_FLAG_SCALED = 4096,
};

// Where a frame's camera time comes from: `time_source`.
enum camring_time_source {
    // The camera's time is not known.
    CAMRING_TIME_SOURCE_NONE = 0,
    // RTCP sender reports.
    CAMRING_TIME_SOURCE_RTCP_SR = 1,
    // The 64-bit NTP RTP header extension.
    CAMRING_TIME_SOURCE_NTP64_HDREXT = 2,
    // RFC 7273 clock signalling.
    CAMRING_TIME_SOURCE_RFC7273 = 3,
    // The ONVIF replay header extension.
    CAMRING_TIME_SOURCE_ONVIF = 4,
};

// How a picture was made to fit its output size: `fit`.
enum camring_fit {
    // Not scaled.
    CAMRING_FIT_NONE = 0,
    // Scaled with padding.
    CAMRING_FIT_LETTERBOX = 1,
    // Scaled without keeping the aspect ratio.
    CAMRING_FIT_STRETCH = 2,
    // Scaled and cut.
    CAMRING_FIT_CROP = 3,
};

// What happens when the writer needs a slot and readers lease all: `lease_policy`.
enum camring_lease_policy {
    // The oldest leased slot is taken back: its lease ends revoked, and the newest frame is always fresh.
    CAMRING_LEASE_POLICY_FRESH = 0,
    // Leases are kept and new frames are dropped meanwhile.
    CAMRING_LEASE_POLICY_PROTECT = 1,
    // There are no leases on this ring.
    CAMRING_LEASE_POLICY_OFF = 2,
};

// Whether a daemon is there: `daemon`.
enum camring_daemon {
    // There is none.
    CAMRING_DAEMON_GONE = 0,
    // It shows signs of life.
    CAMRING_DAEMON_ALIVE = 1,
    // It holds its lock but has not moved for a second: stopped or overloaded.
    CAMRING_DAEMON_HUNG = 2,
};

// Whose rings to accept: `owner`. The owner of a file could truncate it under its readers.
enum camring_owner {
    // Root, this process's user, or the user camring.
    CAMRING_OWNER_USUAL = 0,
    // Only the user `owner_uid`.
    CAMRING_OWNER_UID = 1,
    // Anybody.
    CAMRING_OWNER_ANY = 2,
};

// Whether the daemon may count a handle as a reader: `presence`.
enum camring_presence {
    // As a worker that uses the frames.
    CAMRING_PRESENCE_COUNTED = 0,
    // As an onlooker, which does not keep a camera awake.
    CAMRING_PRESENCE_UNCOUNTED = 1,
};

// A lease that is held; an opaque handle, never to be dereferenced.
struct camring_frame_lease;

// A ring that is attached; an opaque handle, never to be dereferenced.
struct camring_ring;

// How to attach; all zero but struct_size is the default.
struct camring_options {
    // In: sizeof(struct camring_options).
    uint32_t struct_size;
    // enum camring_owner: whose rings to accept.
    uint32_t owner;
    // The user, when `owner` is CAMRING_OWNER_UID.
    uint32_t owner_uid;
    // enum camring_presence.
    uint32_t presence;
    // The memory mount; NULL = $CAMRING_SHM_DIR, else /dev/shm.
    const char *shm_dir;
};

// One ring: what its camera and daemon are doing, how large it is, what this handle has been through. Later versions
// add fields at the end.
struct camring_ring_info {
    // In: sizeof(struct camring_ring_info). Kept as it is.
    uint32_t struct_size;
    // Layout version that this library speaks: major << 16 | minor.
    uint32_t layout_version;
    // enum camring_state: what the daemon is doing.
    uint32_t state;
    // enum camring_reason: why.
    uint32_t reason;
    // enum camring_daemon: whether there is one; a dead one leaves its last state behind.
    uint32_t daemon;
    // Attempts since the camera was last live, at most 255.
    uint32_t attempt;
    // Number of the newest frame; 0 = none yet.
    uint64_t seq;
    // Age of the newest frame now; CAMRING_NO_TIME without one.
    int64_t age_ns;
    // The age above which the configuration calls a frame stale; 0 = never.
    uint64_t stale_after_ns;
    // Moving average of the time between frames.
    uint64_t frame_interval_ns;
    // Bytes that hold every frame of this generation: a buffer of so many needs no second call.
    uint64_t slot_capacity;
    // Bytes of the segment.
    uint64_t file_bytes;
    // Frames kept.
    uint32_t slot_count;
    // enum camring_lease_policy.
    uint32_t lease_policy;
    // Pixels in a row of the newest frame; 0 without one.
    uint32_t width;
    // Rows of the newest frame; 0 without one.
    uint32_t height;
    // enum camring_pixfmt of the newest frame.
    uint32_t pixfmt;
    // Daemons that have owned this generation.
    uint32_t writer_epoch;
    // Sizes and formats in this generation.
    uint32_t geometry_epoch;
    // Sessions with the camera.
    uint32_t session_id;
    // The daemon's pid in its own namespace; 0 = stopped.
    uint32_t writer_pid;
    // 1 = the operator has removed the ring and no new one has come.
    uint32_t removed;
    // Identity of this generation.
    uint8_t generation[16];
    // Since when the state is what it is.
    uint64_t state_since_mono_ns;
    // When the next attempt is due; 0 = none.
    uint64_t next_retry_mono_ns;
    // When the newest frame was published; 0 = never.
    uint64_t last_publish_mono_ns;
    // The daemon's last sign of life.
    uint64_t heartbeat_mono_ns;
    // Frames published in this generation.
    uint64_t published;
    // Pictures that never became frames of this ring, all causes together.
    uint64_t dropped;
    // Leased slots that the writer took back, of all readers.
    uint64_t leases_revoked;
    // Sessions with the camera after the first.
    uint64_t reconnects;
    // Different frames returned by this handle.
    uint64_t frames;
    // Frames published but not returned by this handle.
    uint64_t skipped;
    // Copies that the writer overtook and that were repeated.
    uint64_t retries;
    // Generations that this handle has followed.
    uint64_t followed;
    // Generations that did not continue the numbers of the one before.
    uint64_t resets;
    // Sleeps that ended by themselves although something had changed.
    uint64_t missed_wakes;
    // The word for `state`.
    char state_word[16];
    // The word for `reason`.
    char reason_word[24];
    // The word for `pixfmt`.
    char pixfmt_word[24];
    // The camera.
    char camera[72];
    // The public name of the segment.
    char segment[256];
    // The decoder; empty before the first session.
    char decoder[32];
    // The stream's codec; empty before the first session.
    char codec[32];
};

// One frame: what it shows, where its bytes are, when it was made. Later versions add fields at the end.
struct camring_frame {
    // In: sizeof(struct camring_frame). Kept as it is.
    uint32_t struct_size;
    // Bits of enum camring_flag.
    uint32_t flags;
    // Number of this frame in its ring: first 1, then +1 each, never again.
    uint64_t seq;
    // Frames published since the one this handle returned before, without this one; 0 for the first.
    uint64_t skipped;
    // The pixels: the caller's buffer after a copy, the ring's own memory (read-only) in a lease; NULL when only
    // described.
    const uint8_t *payload;
    // Bytes of the pixels, all planes together.
    uint64_t payload_bytes;
    // Pixels in a row.
    uint32_t width;
    // Rows.
    uint32_t height;
    // enum camring_pixfmt.
    uint32_t pixfmt;
    // Planes in use, 1 to 4.
    uint32_t plane_count;
    // First byte of each plane, from `payload`.
    uint32_t plane_offset[4];
    // Bytes from one row to the next, by plane.
    uint32_t plane_stride[4];
    // Identity of the generation it was read from.
    uint8_t generation[16];
    // Age at the moment of the call: now minus arrival, time suspended included. A negative age is never fresh.
    int64_t age_ns;
    // When the picture's last packet arrived.
    int64_t arrival_mono_ns;
    // The same, since 1970.
    int64_t arrival_real_ns;
    // The camera's own clock, since 1970; CAMRING_NO_TIME when it is not known.
    int64_t source_unix_ns;
    // When the decoder delivered the picture.
    int64_t decoded_mono_ns;
    // When publishing it began, microseconds before readers could see it.
    int64_t publish_mono_ns;
    // The same, since 1970.
    int64_t publish_real_ns;
    // Presentation time within the session.
    int64_t pts_ns;
    // Nominal duration; 0 = unknown.
    int64_t duration_ns;
    // CLOCK_BOOTTIME - CLOCK_MONOTONIC when the slot was taken: time spent suspended.
    int64_t boot_minus_mono_ns;
    // From arrival to the converter.
    uint64_t lag_ns;
    // Number of the decoded picture, equal in all outputs of a camera.
    uint64_t source_seq;
    // Frames dropped in this ring before this one, since the ring was made.
    uint64_t dropped_before;
    // Source pictures not published in this ring since its previous frame.
    uint32_t gap;
    // CRC-32C of the pixels; 0 = not computed.
    uint32_t payload_crc32c;
    // Grows with each daemon that takes the ring over.
    uint32_t writer_epoch;
    // Grows when the size or format changes within a generation.
    uint32_t geometry_epoch;
    // Grows with each session with the camera.
    uint32_t session_id;
    // RTP time of the picture, 90 kHz for video.
    uint32_t rtp_timestamp;
    // Colour primaries of the source, a code point of ITU-T H.273.
    uint8_t color_primaries;
    // Transfer characteristics, likewise.
    uint8_t color_transfer;
    // Matrix coefficients, likewise.
    uint8_t color_matrix;
    // 1 = full range (0..255), 0 = limited (16..235).
    uint8_t color_full_range;
    // enum camring_time_source: where `source_unix_ns` comes from.
    uint8_t time_source;
    // The decoder's own format, a small enum camring_pixfmt.
    uint8_t source_pixfmt;
    // Quarter turns that were applied.
    uint8_t rotation;
    // enum camring_fit: how the picture was made to fit.
    uint8_t fit;
    // Pixel aspect ratio, width; 0 = unknown.
    uint16_t pixel_aspect_width;
    // Pixel aspect ratio, height; 0 = unknown.
    uint16_t pixel_aspect_height;
    // Size of the decoded picture.
    uint32_t source_width;
    // Size of the decoded picture.
    uint32_t source_height;
    // x_out = x_source * scale_x + offset_x, and so for y: letterbox, crop and region are all in it.
    float scale_x;
    // Output pixels per source pixel.
    float scale_y;
    // Output pixels.
    float offset_x;
    // Output pixels.
    float offset_y;
    // Scale of float formats.
    float value_scale;
    // Offset of float formats.
    float value_offset;
    // Padding colour in pixel order.
    uint8_t pad_color[4];
    // 1 = `age_ns` was taken from wall clocks because writer and reader live in different time namespaces.
    uint32_t age_approximate;
    // 1 in a lease that the writer honours; 0 in a copy, and while the writer takes slots without asking (a lease is
    // then only checked, and camring_release() says what became of it).
    uint32_t guarded;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's CAMRING_ABI_VERSION, to compare with the header's.
uint32_t camring_abi_version(void);

// Attaches to a camera ("front"), an output ("front.small") or a segment ("camring.front") and stores the handle in
// *ring.
//
// Waits up to timeout_ns for the name to appear; 0 = not at all, CAMRING_FOREVER. A ring without a frame attaches at
// once. options may be NULL. Give the handle back with camring_detach(). It follows restarts of the daemon and new
// generations by itself: a program attaches once.
//
// Errors: NAME, NOT_FOUND, PERMISSION, UNTRUSTED, LAYOUT, SUPERSEDED, REMOVED, SYSTEM, ARGUMENT.
int camring_attach(const char *name,
                   int64_t timeout_ns,
                   const struct camring_options *options,
                   struct camring_ring **ring);

// Gives a handle back. Waits of other threads on it end within a quarter of a second, with CAMRING_ERROR_HANDLE; their
// other calls end as they would have. Leases of the ring stay valid until they are released.
//
// Errors: HANDLE when it was given back before.
int camring_detach(struct camring_ring *ring);

// Says what the ring's camera, its daemon and this handle are doing. Copies no pixels; takes a few microseconds.
//
// Errors: HANDLE, ARGUMENT.
int camring_info(const struct camring_ring *ring,
                 struct camring_ring_info *info);

// Copies the newest frame into buffer and describes it in *frame; the same frame again when there is no newer one.
//
// Never waits. The buffer may be larger than the frame: camring_ring_info.slot_capacity is enough for every frame of a
// generation. With a buffer of NULL and 0 bytes the frame is described only, and does not count as returned.
//
// Errors: NO_FRAME, OVERRUN, UNKNOWN_FORMAT, CORRUPT, HANDLE, ARGUMENT; BUFFER_SIZE, which fills *frame all the same:
// payload_bytes says what is needed, and the frame does not count as returned.
int camring_latest(const struct camring_ring *ring,
                   uint8_t *buffer,
                   size_t buffer_bytes,
                   struct camring_frame *frame);

// As camring_latest(), but waits up to timeout_ns for a frame newer than the last one this handle has returned; 0 = not
// at all, CAMRING_FOREVER. frame->skipped says how many were published in between. No frame is returned twice.
//
// Errors: TIMEOUT, whose sentence says what the camera is doing; REMOVED, a second after the operator has removed the
// ring; SUPERSEDED, when the time is over and the name still leads to a replaced generation; those of camring_latest().
int camring_next(const struct camring_ring *ring,
                 uint8_t *buffer,
                 size_t buffer_bytes,
                 int64_t timeout_ns,
                 struct camring_frame *frame);

// Leases the newest frame: frame->payload points into the ring's own memory, nothing is copied.
//
// The memory is read-only: a write through a cast ends the program that tries it (SIGSEGV) and harms nobody else.
// The writer leaves the slot alone as long as it has others; lease few frames at a time and not for long. What was
// read is good if camring_release() says so afterwards. A lease outlives camring_detach().
//
// Counts as returned, as camring_latest() does. To get each frame once: camring_wait(), then camring_lease().
//
// Errors: LEASE_UNAVAILABLE when leases cannot be had here (then copy), and those of camring_latest().
int camring_lease(const struct camring_ring *ring,
                  struct camring_frame *frame,
                  struct camring_frame_lease **lease);

// Whether a leased frame has been constant so far: CAMRING_OK, or CAMRING_ERROR_REVOKED. The lease stays held.
//
// Errors: REVOKED, HANDLE.
int camring_valid(const struct camring_frame_lease *lease);

// Ends a lease: CAMRING_OK if the frame was constant from lease to release, CAMRING_ERROR_REVOKED if the writer has
// overwritten it meanwhile: discard what was made of it. In both cases the lease is over, and its memory must not be
// used any more.
//
// Errors: REVOKED; HANDLE when it was released before.
int camring_release(struct camring_frame_lease *lease);

// Sleeps until the ring has a frame newer than the last one this handle has returned, at most timeout_ns; 0 = only
// look, CAMRING_FOREVER. Uses no processor time while it sleeps.
//
// Errors: TIMEOUT, REMOVED, HANDLE, ARGUMENT.
int camring_wait(const struct camring_ring *ring,
                 int64_t timeout_ns);

// Sleeps until at least one of count rings has a frame newer than the last one its handle has returned, at most
// timeout_ns; 0 = only look, CAMRING_FOREVER. Stores the places of those rings, ascending, in ready[0..*ready_count]:
// ready has room for count numbers.
//
// count is 1 to CAMRING_WAIT_MAX. One ring that is given twice is reported twice.
//
// Errors: TIMEOUT, REMOVED when all of them are (*ready_count is then 0), HANDLE, ARGUMENT.
int camring_wait_any(struct camring_ring *const *rings,
                     size_t count,
                     int64_t timeout_ns,
                     size_t *ready,
                     size_t *ready_count);

// The sentence of an error: what the last failed call of this thread had to say if its error was this one (which ring,
// what was found, what was expected, what to do), else what the number means in general.
//
// Never NULL. Valid until the next failed call of this thread.
const char *camring_strerror(int code);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CAMRING_H */

#ifndef CAMRING_TO_SOURCE
#define CAMRING_TO_SOURCE
// Where the point (x, y) of a frame lies in the camera's own picture: undoes region, crop, letterbox and scale. Points are
// counted from the top left corner: the middle of the first pixel is (0.5, 0.5). 0, or -1 for a frame that says no scale.
static inline int camring_to_source(const struct camring_frame *frame, double x, double y, double *source_x, double *source_y)
{
    if (!(frame->scale_x > 0) || !(frame->scale_y > 0))
        return -1;
    *source_x = (x - frame->offset_x) / frame->scale_x;
    *source_y = (y - frame->offset_y) / frame->scale_y;
    return 0;
}
#endif  /* CAMRING_TO_SOURCE */
