//go:build unix && !linux && !darwin

package process

import "errors"

func inspect(int) (status, error) { return status{}, errors.ErrUnsupported }

func groupRuns(int) bool { return true }
