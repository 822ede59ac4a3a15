/* Does what it is told, line by line, and answers each line with one: `code=N key=value ... text=SENTENCE`. */
#include "check.h"

#include <inttypes.h>
#include <string.h>

#define HELD 64

static struct camring_ring *ring;
static struct camring_frame_lease *leases[HELD];
static struct camring_frame held[HELD];
static size_t held_count;
static struct camring_frame frame;
static uint8_t *buffer;
static size_t bytes;

static int last;

static void answer(int code)
{
    last = code;
    printf("code=%d", code);
}

static void describe(const struct camring_frame *f)
{
    printf(" seq=%" PRIu64 " skipped=%" PRIu64 " bytes=%" PRIu64 " width=%" PRIu32 " height=%" PRIu32 " guarded=%" PRIu32
           " age_ns=%" PRId64 " null=%d own=%d",
           f->seq, f->skipped, f->payload_bytes, f->width, f->height, f->guarded, f->age_ns, f->payload == NULL,
           f->payload == buffer);
    if (f->payload != NULL)
        printf(" whole=%d", is_whole(f));
}

static void attach(const char *name, int64_t timeout_ns)
{
    int code = camring_attach(name, timeout_ns, NULL, &ring);
    answer(code);
}

static void info(void)
{
    struct camring_ring_info now;
    memset(&now, 0xAA, sizeof now);
    now.struct_size = sizeof now;
    int code = camring_info(ring, &now);
    answer(code);
    if (code == CAMRING_OK)
        printf(" state=%s reason=%s daemon=%" PRIu32 " seq=%" PRIu64 " age_ns=%" PRId64 " slots=%" PRIu32
               " capacity=%" PRIu64 " width=%" PRIu32 " height=%" PRIu32 " pixfmt=%s frames=%" PRIu64 " skipped=%" PRIu64
               " camera=%s segment=%s removed=%" PRIu32 " policy=%" PRIu32 " followed=%" PRIu64 " published=%" PRIu64,
               now.state_word, now.reason_word, now.daemon, now.seq, now.age_ns, now.slot_count, now.slot_capacity,
               now.width, now.height, now.pixfmt_word, now.frames, now.skipped, now.camera, now.segment, now.removed,
               now.lease_policy, now.followed, now.published);
}

static void copy(int code)
{
    answer(code);
    if (code == CAMRING_OK || code == CAMRING_ERROR_BUFFER_SIZE)
        describe(&frame);
}

static void lease(void)
{
    CHECK(held_count < HELD);
    memset(&held[held_count], 0, sizeof held[0]);
    held[held_count].struct_size = sizeof held[0];
    int code = camring_lease(ring, &held[held_count], &leases[held_count]);
    answer(code);
    if (code == CAMRING_OK) {
        printf(" lease=%zu", held_count);
        describe(&held[held_count++]);
    }
}

static void obey(const char *word, const char *argument)
{
    long long number = atoll(argument);
    memset(&frame, 0, sizeof frame);
    frame.struct_size = sizeof frame;
    if (strcmp(word, "attach") == 0) {
        attach(argument, 0);
    } else if (strcmp(word, "buffer") == 0) {
        free(buffer);
        bytes = (size_t)number;
        buffer = malloc(bytes);
        answer(CAMRING_OK);
    } else if (strcmp(word, "latest") == 0) {
        copy(camring_latest(ring, buffer, bytes, &frame));
    } else if (strcmp(word, "describe") == 0) {
        copy(camring_latest(ring, NULL, 0, &frame));
    } else if (strcmp(word, "next") == 0) {
        copy(camring_next(ring, buffer, bytes, number, &frame));
    } else if (strcmp(word, "wait") == 0) {
        answer(camring_wait(ring, number));
    } else if (strcmp(word, "lease") == 0) {
        lease();
    } else if (strcmp(word, "look") == 0) {
        answer(CAMRING_OK);
        describe(&held[number]);
    } else if (strcmp(word, "valid") == 0) {
        answer(camring_valid(leases[number]));
    } else if (strcmp(word, "release") == 0) {
        answer(camring_release(leases[number]));
    } else if (strcmp(word, "info") == 0) {
        info();
    } else if (strcmp(word, "detach") == 0) {
        answer(camring_detach(ring));
    } else {
        fprintf(stderr, "ask: unknown word %s\n", word);
        exit(2);
    }
}

int main(void)
{
    char line[512], word[32], argument[400];
    while (fgets(line, sizeof line, stdin) != NULL) {
        argument[0] = 0;
        CHECK(sscanf(line, "%31s %399s", word, argument) >= 1);
        obey(word, argument);
        printf(" text=%s\n", camring_strerror(last));
        fflush(stdout);
    }
    free(buffer);
    return 0;
}
