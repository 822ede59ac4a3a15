
/* What tests/segment_doc.rs adds to the printed program: one answer per line of input. */
static int is_pattern(const frame *f, const void *bytes) {
    for (uint64_t k = 0; k < f->bytes; k++)
        if (((const volatile uint8_t *)bytes)[k] != (f->seq * 31 + k) % 251) return 0;
    return 1;
}

static void say(const frame *f, const void *bytes, enum outcome got) {
    const char *words[] = { "", "none", "overtaken", "unusable", "no leases" };
    if (got != FRAME)
        printf("%s\n", words[got]);
    else if (!is_pattern(f, bytes))
        printf("frame %llu is torn or wrong\n", (unsigned long long)f->seq);
    else
        printf("%llu %u %u %u %llu\n", (unsigned long long)f->seq, f->width, f->height, f->stride,
               (unsigned long long)(f->bytes - f->plane));
}

static void many(ring *r, uint64_t *buffer) {
    uint64_t last = 0, different = 0;
    while (different < 100) {
        frame f;
        if (latest(r, &f, buffer) != FRAME) continue;
        if (!is_pattern(&f, buffer) || f.seq < last) {
            printf("frame %llu after %llu is torn or wrong\n", (unsigned long long)f.seq, (unsigned long long)last);
            return;
        }
        different += f.seq > last;
        last = f.seq;
    }
    printf("many %llu\n", (unsigned long long)different);
}

int main(int count, char **words) {
    static uint64_t buffer[1 << 20];
    char line[100];
    frame f = { 0 };
    ring r = { .name = words[count - 2], .shm = words[count - 1] };
    if (!attach(&r)) return 1;
    printf("attached\n");
    for (fflush(stdout); fgets(line, sizeof line, stdin); fflush(stdout)) {
        if (r.config.capacity > sizeof buffer) return 2;
        if (strncmp(line, "wait", 4) == 0) printf("%s\n", wait_newer(&r, atof(line + 5)) ? "newer" : "timeout");
        else if (strcmp(line, "many\n") == 0) many(&r, buffer);
        else if (strcmp(line, "look\n") == 0) printf("%s\n", is_pattern(&f, f.payload) ? "constant" : "changed");
        else if (strcmp(line, "release\n") == 0) printf("%s\n", release(&r, &f) ? "valid" : "revoked");
        else if (strcmp(line, "lease\n") == 0) {
            enum outcome got = lease(&r, &f);
            say(&f, f.payload, got);
        } else {
            enum outcome got = latest(&r, &f, buffer);
            say(&f, buffer, got);
        }
    }
    return 0;
}
