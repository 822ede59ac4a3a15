/*
 * Computes the mean brightness of every frame in place: nothing is copied, the pixels are read where the writer has put
 * them. What was computed counts only if the lease ends valid.
 *
 *   cc lease.c $(pkg-config --cflags --libs camring) -o lease
 *   ./lease front 100           # a hundred frames; without a number: for ever
 */
#include <camring.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(const char *what, int code)
{
    fprintf(stderr, "lease: %s: %s\n", what, camring_strerror(code));
    return EXIT_FAILURE;
}

static double mean(const struct camring_frame *frame)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < frame->payload_bytes; i++)
        sum += frame->payload[i];
    return (double)sum / (double)frame->payload_bytes;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "front";
    long left = argc > 2 ? atol(argv[2]) : -1;
    struct camring_frame frame = {.struct_size = sizeof frame};
    struct camring_ring *ring = NULL;
    struct camring_frame_lease *lease = NULL;

    int code = camring_attach(name, 10 * CAMRING_SECOND, NULL, &ring);
    if (code != CAMRING_OK)
        return failed("attach", code);

    while (left != 0) {
        code = camring_wait(ring, 10 * CAMRING_SECOND);
        if (code == CAMRING_OK)
            code = camring_lease(ring, &frame, &lease);
        if (code == CAMRING_ERROR_TIMEOUT || code == CAMRING_ERROR_OVERRUN) {
            failed("still waiting", code);
            continue;
        }
        if (code != CAMRING_OK)
            return failed("lease", code);

        double brightness = mean(&frame);
        code = camring_release(lease);
        if (code == CAMRING_ERROR_REVOKED) { /* the writer needed the slot: the sum may mix two frames */
            failed("frame lost", code);
            continue;
        }
        if (code != CAMRING_OK)
            return failed("release", code);
        printf("%" PRIu64 " mean %.2f\n", frame.seq, brightness);
        if (left > 0)
            left--;
    }
    return camring_detach(ring) == CAMRING_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
