// Package e2e has the tests of the whole: they build the real keelson and the
// example shop, run `keelson up` in folders of their own, and look at it from
// outside as users, operators and the kernel do. They kill, stop and starve
// processes, and check after each test that none is left behind.
//
// There is no code here besides tests. KEELSON_SOAK=1 makes the campaign longer,
// and KEELSON_SEED=n repeats one.
package e2e
