/*
 * Serves several cameras with one thread: sleeps until any of them has a frame, then looks at those that have.
 *
 *   cc wait_any.c $(pkg-config --cflags --libs camring) -o wait_any
 *   ./wait_any 100 front back   # a hundred frames in all; 0: for ever
 */
#include <camring.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define MOST 16

static int failed(const char *what, int code)
{
    fprintf(stderr, "wait_any: %s: %s\n", what, camring_strerror(code));
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    struct camring_frame frame = {.struct_size = sizeof frame};
    struct camring_ring *rings[MOST];
    struct camring_frame_lease *lease = NULL;
    size_t ready[MOST], ready_count = 0, count = argc > 2 ? (size_t)argc - 2 : 0;
    long left = argc > 1 ? atol(argv[1]) : 0;

    if (count == 0 || count > MOST || left < 0) {
        fprintf(stderr, "usage: wait_any FRAMES RING... (at most %d rings)\n", MOST);
        return EXIT_FAILURE;
    }
    if (left == 0)
        left = -1;
    for (size_t i = 0; i < count; i++) {
        int code = camring_attach(argv[i + 2], 10 * CAMRING_SECOND, NULL, &rings[i]);
        if (code != CAMRING_OK)
            return failed(argv[i + 2], code);
    }
    while (left != 0) {
        int code = camring_wait_any(rings, count, 10 * CAMRING_SECOND, ready, &ready_count);
        if (code != CAMRING_OK && code != CAMRING_ERROR_TIMEOUT)
            return failed("wait", code);
        for (size_t i = 0; i < ready_count && left != 0; i++) {
            code = camring_lease(rings[ready[i]], &frame, &lease);
            if (code != CAMRING_OK) {
                failed(argv[ready[i] + 2], code);
                continue;
            }
            printf("%s %" PRIu64 " centre %d\n", argv[ready[i] + 2], frame.seq, frame.payload[frame.payload_bytes / 2]);
            code = camring_release(lease);
            if (code != CAMRING_OK)
                failed(argv[ready[i] + 2], code);
            if (left > 0)
                left--;
        }
    }
    for (size_t i = 0; i < count; i++)
        camring_detach(rings[i]);
    return EXIT_SUCCESS;
}
