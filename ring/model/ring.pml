/* The ring's protocol at sequential consistency: claims, leases, kill -9 at any step, adoption, new generations.
 *
 * Every statement is one step that others see; a step of the kernel (a lock call, a rename) is atomic. What loom proves
 * about the order of steps in memory is taken for granted here. Run by scripts/test-model, which sets:
 *
 *   N        slots of a generation           REVOKE   1: policy fresh, 0: protect
 *   MAXSEQ   frames published                NC, KC   readers by copy, and how often each of them reads
 *   CRASHES  ends by kill -9, of all         NL, KL   readers by lease, likewise; each of them may be killed
 *   CHANGES  new generations                 HISTORY  1: readers by copy take any slot, not only the newest frame's
 *   BUG      0, or one planted fault (see PLANTED below)
 *
 * A picture is known by its number and by how often the daemon had died when it was made: a number that is used again
 * for another picture shows.
 */

#ifndef BUG
#define BUG 0
#endif
/* PLANTED */
#define UNLOCK_BEFORE_STAMP     (BUG == 1)
#define HEAD_BEFORE_STAMP       (BUG == 2)
#define CLAIM_TAKES_HEAD        (BUG == 3)
#define ADOPT_REPAIRS_NOTHING   (BUG == 4)
#define ADOPT_KEEPS_HEAD        (BUG == 5)
#define NAME_BEFORE_FRAME       (BUG == 6)
#define WRITE_AFTER_RETIRE      (BUG == 7)
#define SETTLE_FORGETS_PUBLIC   (BUG == 8)
#define NUMBERS_BEGIN_ANEW      (BUG == 9)
#define STAMP_BEFORE_PAYLOAD    (BUG == 10)

#define GENS (CHANGES + 1)
#define AT(g, i) ((g) * N + (i))
#define NONE 255
#define PICTURE(seq) ((seq) + 16 * life)

/* What lies in the segments. A stamp is 0, odd, or a sequence times two. */
byte stamp[GENS * N];
byte first[GENS * N];           /* the first and the last word of the payload: the picture it belongs to */
byte last_word[GENS * N];
byte head_seq[GENS];            /* with head_slot one word: always stored and loaded together */
byte head_slot[GENS];
bit retired[GENS];
/* What the kernel knows. */
byte shared[GENS * N];          /* read locks on the lease byte of a slot */
bit exclusive[GENS * N];        /* the write lock on it */
byte anchor = 0;                /* the generation that each name leads to */
byte public_name = 0;
/* Bookkeeping of the model. */
byte crashes = 0;
bit done = 0;

/* kill -9, or not, after any step of the daemon. Nobody can tell a daemon that is dead from one that has stopped, so the
   choice needs no step of its own. */
#define KILL if :: crashes < CRASHES -> crashes++; goto dead :: true fi
#define STEP(act) atomic { act; KILL }

/* I14: only the generation under the anchor is written, or one that has no name yet; never a retired one. */
#define WRITES(g) assert(!retired[g] && (g == anchor || g == anchor + 1))

#define IS_HEAD(g, i) (head_seq[g] != 0 && i == head_slot[g] && !CLAIM_TAKES_HEAD)

proctype daemon() {
    byte g, i, c, seq, newest, newest_slot, dropped, life;
    bit got;

boot:
    life++;
    /* The kernel has closed the dead daemon's files: its locks are gone, and so is a generation without a name. */
    d_step {
        i = 0;
        do
        :: i < GENS * N ->
            exclusive[i] = 0;
            if :: i >= (anchor + 1) * N -> stamp[i] = 0; first[i] = 0; last_word[i] = 0 :: else fi;
            i++
        :: else -> break
        od;
        i = anchor + 1;
        do :: i < GENS -> head_seq[i] = 0; head_slot[i] = 0; i++ :: else -> break od;
        i = 0
    }
    /* Adopt what the anchor leads to. */
    g = anchor;
    assert(!retired[g]);
    newest = head_seq[g]; newest_slot = head_slot[g];
    do
    :: i < N ->
        if
        :: (stamp[AT(g, i)] & 1) && !ADOPT_REPAIRS_NOTHING -> STEP(WRITES(g); stamp[AT(g, i)] = 0)
        :: !(stamp[AT(g, i)] & 1) && stamp[AT(g, i)] / 2 > newest && !ADOPT_KEEPS_HEAD ->
            newest = stamp[AT(g, i)] / 2; newest_slot = i
        :: else
        fi;
        i++
    :: else -> break
    od;
    seq = newest;
    STEP(head_seq[g] = newest; head_slot[g] = newest_slot);
    /* Both names are to lead to it; a generation that still has one of them is retired first. */
    if
    :: public_name != anchor && !SETTLE_FORGETS_PUBLIC ->
        STEP(retired[public_name] = 1);
        STEP(public_name = anchor)
    :: else
    fi;

    do
    :: seq < MAXSEQ && g + 1 < GENS -> goto change
    :: seq < MAXSEQ -> goto publish
    :: seq >= MAXSEQ -> goto end_of_stream
    od;

publish:
    /* Claim: every slot but the newest frame's in some order, the first that no reader leases. */
    got = 0; c = 0;
    do
    :: c < N && !got ->
        if
        :: IS_HEAD(g, c) || (stamp[AT(g, c)] & 1)
        :: else ->
            STEP(if :: shared[AT(g, c)] == 0 -> exclusive[AT(g, c)] = 1; got = 1 :: else fi);
            if
            :: got ->
                if :: UNLOCK_BEFORE_STAMP -> exclusive[AT(g, c)] = 0 :: else fi;
                STEP(WRITES(g); stamp[AT(g, c)] = stamp[AT(g, c)] | 1);
                STEP(exclusive[AT(g, c)] = 0);
                i = c
            :: else
            fi
        fi;
        c++
    :: else -> break
    od;
    if
    :: !got && REVOKE ->
        /* Fresh: the slot with the oldest frame, whoever leases it. */
        d_step {
            c = 0; i = NONE;
            do
            :: c < N ->
                if
                :: IS_HEAD(g, c) || (stamp[AT(g, c)] & 1)
                :: else ->
                    if
                    :: i == NONE -> i = c
                    :: i != NONE && stamp[AT(g, c)] < stamp[AT(g, i)] -> i = c
                    :: else
                    fi
                fi;
                c++
            :: else -> break
            od
        }
        if :: i != NONE -> STEP(WRITES(g); stamp[AT(g, i)] = stamp[AT(g, i)] | 1; got = 1) :: else fi
    :: else
    fi;
    if
    :: !got ->
        /* Protect: the frame is dropped; the model ends after a few. */
        dropped++;
        if :: dropped > 2 -> goto end_of_stream :: else goto next fi
    :: else
    fi;
    /* Fill, publish. */
    if :: STAMP_BEFORE_PAYLOAD -> stamp[AT(g, i)] = (seq + 1) * 2 :: else fi;
    STEP(WRITES(g); first[AT(g, i)] = PICTURE(seq + 1));
    STEP(WRITES(g); last_word[AT(g, i)] = PICTURE(seq + 1));
    if :: HEAD_BEFORE_STAMP -> STEP(head_seq[g] = seq + 1; head_slot[g] = i) :: else fi;
    STEP(WRITES(g); stamp[AT(g, i)] = (seq + 1) * 2);
    STEP(WRITES(g); head_seq[g] = seq + 1; head_slot[g] = i);
    seq++;
    goto next;

change:
    /* A larger picture: a generation without a name gets its first frame, then the names, then the old one ends. Until
       it has a name nobody sees it, so all of its making is one step. */
    i = (NUMBERS_BEGIN_ANEW -> 1 : seq + 1);
    if
    :: !NAME_BEFORE_FRAME ->
        STEP(
            first[AT(g + 1, 0)] = PICTURE(i); last_word[AT(g + 1, 0)] = PICTURE(i); stamp[AT(g + 1, 0)] = i * 2;
            head_seq[g + 1] = i; head_slot[g + 1] = 0
        )
    :: else
    fi;
    STEP(anchor = g + 1);
    STEP(public_name = g + 1);
    if
    :: NAME_BEFORE_FRAME ->
        first[AT(g + 1, 0)] = PICTURE(i); last_word[AT(g + 1, 0)] = PICTURE(i); stamp[AT(g + 1, 0)] = i * 2;
        d_step { head_seq[g + 1] = i; head_slot[g + 1] = 0 }
    :: else
    fi;
    STEP(retired[g] = 1);
    if :: WRITE_AFTER_RETIRE -> WRITES(g); stamp[AT(g, 0)] = 0 :: else fi;
    g = g + 1; seq = i;

next:
    do
    :: seq < MAXSEQ && g + 1 < GENS -> goto change
    :: seq < MAXSEQ -> goto publish
    :: seq >= MAXSEQ -> goto end_of_stream
    od;

dead:
    goto boot;
end_of_stream:
    done = 1
}

/* I1: whatever happens, the head of every generation names a complete frame. The statement can only be executed when
   that is false, so watching costs no state. */
#define COMPLETE(g) (head_seq[g] == 0 || (stamp[AT(g, head_slot[g])] == head_seq[g] * 2 \
    && first[AT(g, head_slot[g])] % 16 == head_seq[g] && first[AT(g, head_slot[g])] == last_word[AT(g, head_slot[g])]))

active proctype monitor() {
end:
    do
    :: atomic { !COMPLETE(0) -> assert(false) }
#if CHANGES > 0
    :: atomic { !COMPLETE(1) -> assert(false) }
#endif
    od
}

/* A reader goes where its name leads: at once when its generation is retired, else when it happens to look. */
#if CHANGES > 0
#define FOLLOW(g, name) if :: retired[g] -> g = name :: !retired[g] -> g = name :: !retired[g] fi
#else
#define FOLLOW(g, name) skip
#endif

/* I2 and I8: an accepted copy is one frame, no number comes after a larger one, and a number stands for one picture. */
#define ACCEPT(seq, a, b) \
    assert(a == b && a % 16 == seq); \
    assert(seq >= newest); \
    assert(seq != newest || a == picture); \
    newest = seq; picture = a

proctype copy_reader() {
    byte g, seq, slot, a, b, newest, picture, tries;

    do
    :: tries < KC ->
        tries++;
        FOLLOW(g, anchor);
        d_step { seq = head_seq[g]; slot = head_slot[g] }
        if
        :: HISTORY ->
            slot = 0;
            do :: slot < N - 1 -> slot++ :: break od;
            if :: stamp[AT(g, slot)] & 1 -> seq = 0 :: else -> seq = stamp[AT(g, slot)] / 2 fi;
            /* Only what is newer than the frame it has is of interest. */
            if :: seq < newest -> seq = 0 :: else fi
        :: else -> assert(seq != 0 || newest == 0)
        fi;
        if
        :: seq != 0 && stamp[AT(g, slot)] == seq * 2 ->
            a = first[AT(g, slot)];
            b = last_word[AT(g, slot)];
            if :: stamp[AT(g, slot)] == seq * 2 -> ACCEPT(seq, a, b) :: else fi
        :: else
        fi;
        a = 0; b = 0; slot = 0; seq = 0
    :: else -> break
    od;
    /* Nobody is left behind: once the writer is at rest, the name leads to the newest frame there is. */
    done;
    g = anchor;
    assert(public_name == anchor && head_seq[g] >= newest && (head_seq[g] == MAXSEQ || !REVOKE))
}

proctype lease_reader() {
    byte g, seq, slot, a, b, newest, picture, tries;

    do
    :: tries < KL ->
        tries++;
        FOLLOW(g, public_name);
        d_step { seq = head_seq[g]; slot = head_slot[g] }
        if :: seq == 0 -> goto again :: else fi;
        atomic { if :: !exclusive[AT(g, slot)] -> shared[AT(g, slot)]++ :: else -> goto again fi }
        if
        :: stamp[AT(g, slot)] == seq * 2 ->
            a = first[AT(g, slot)];
            b = last_word[AT(g, slot)];
            /* Killed: the kernel drops the lock. */
            if :: crashes < CRASHES -> crashes++; shared[AT(g, slot)]--; goto killed :: true fi;
            if
            :: REVOKE ->
                /* I4: valid at release means constant all the time. */
                a = (a == first[AT(g, slot)] -> a : NONE);
                b = (b == last_word[AT(g, slot)] -> b : NONE);
                if :: stamp[AT(g, slot)] == seq * 2 -> ACCEPT(seq, a, b) :: else fi
            :: else ->
                /* I3: nothing changes while the lease is held. */
                a = (a == first[AT(g, slot)] -> a : NONE);
                b = (b == last_word[AT(g, slot)] -> b : NONE);
                assert(stamp[AT(g, slot)] == seq * 2);
                ACCEPT(seq, a, b)
            fi
        :: else
        fi;
        shared[AT(g, slot)]--;
again:
        a = 0; b = 0; slot = 0; seq = 0
    :: else -> break
    od;
killed:
    skip
}

init {
    byte i;
    atomic {
        run daemon();
        do :: i < NC -> run copy_reader(); i++ :: else -> break od;
        i = 0;
        do :: i < NL -> run lease_reader(); i++ :: else -> break od
    }
}
