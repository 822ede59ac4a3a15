/* fork() with rings, leases and busy threads: the child reads on its own, and never ends its parent's lease. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static struct camring_ring *ring;
static volatile int stop;

/* Keeps the library's locks busy, so that a fork finds them held. */
static void *busy(void *held)
{
    static __thread uint8_t buffer[1 << 16];
    struct camring_frame frame = {.struct_size = sizeof frame};
    struct camring_ring *own;
    while (!stop) {
        for (int i = 0; i < 2000; i++)
            EXPECT(CAMRING_OK, camring_valid(held));
        EXPECT(CAMRING_OK, camring_latest(ring, buffer, sizeof buffer, &frame));
        EXPECT(CAMRING_OK, camring_attach("yard", 0, NULL, &own));
        EXPECT(CAMRING_OK, camring_detach(own));
    }
    return NULL;
}

/* The child's part; ends the child. */
static void child(struct camring_frame_lease *lease)
{
    static uint8_t buffer[1 << 16];
    struct camring_frame frame = {.struct_size = sizeof frame};
    struct camring_frame_lease *own = NULL;
    alarm(30);
    EXPECT(CAMRING_ERROR_REVOKED, camring_valid(lease));
    EXPECT(CAMRING_ERROR_REVOKED, camring_release(lease));
    EXPECT(CAMRING_OK, camring_latest(ring, buffer, sizeof buffer, &frame));
    CHECK(is_whole(&frame));
    EXPECT(CAMRING_OK, camring_lease(ring, &frame, &own));
    CHECK(is_whole(&frame) && frame.guarded);
    EXPECT(CAMRING_OK, camring_release(own));
    EXPECT(CAMRING_OK, camring_detach(ring));
    _exit(0);
}

int main(int argc, char **argv)
{
    pthread_t thread;
    struct camring_frame_lease *lease = NULL;
    struct camring_frame frame = {.struct_size = sizeof frame};
    CHECK(argc == 2);
    EXPECT(CAMRING_OK, camring_attach("yard", 0, NULL, &ring));
    EXPECT(CAMRING_OK, camring_lease(ring, &frame, &lease));
    CHECK(pthread_create(&thread, NULL, busy, lease) == 0);
    for (long i = atol(argv[1]); i > 0; i--) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            child(lease);
        int status = -1;
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        EXPECT(CAMRING_OK, camring_valid(lease));
    }
    stop = 1;
    CHECK(pthread_join(thread, NULL) == 0);
    printf("forked\n");
    fflush(stdout);
    /* The writer now laps the ring as often as it can: the lease must still be honoured. */
    CHECK(getchar() == '\n');
    CHECK(is_whole(&frame));
    EXPECT(CAMRING_OK, camring_release(lease));
    EXPECT(CAMRING_OK, camring_detach(ring));
    return 0;
}
