// Package archtest holds no code, only tests of the repository itself: which
// package may import which (the floors), which dependencies each may have, and
// a few rules of style that no linter knows. The table in floors_test.go is
// the place where a new package or dependency is admitted.
package archtest
