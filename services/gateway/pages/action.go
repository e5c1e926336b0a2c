package pages

// action is one thing a signer can do from here: a button that posts, or a link.
type action struct {
	Kind   string // post, get, mail, tel, web
	Label  string
	Target string
	Icon   string
}

func post(label, path, icon string) action { return action{"post", label, path, icon} }
func get(label, path, icon string) action  { return action{"get", label, path, icon} }

// contact is the best way to reach somebody, with a label that says what will happen; zero when there is nobody.
func (h help) contact(label string) action {
	switch {
	case h.Email != "":
		return action{"mail", label, h.Email, "mail"}
	case h.URL != "":
		return action{"web", label, h.URL, "mail"}
	case h.Phone != "":
		return action{"tel", label, h.Tel, "phone"}
	}
	return action{}
}

// Remedies are the ways on that are open to this signer now, as paths on this origin. Empty ones are not offered.
type Remedies struct {
	Reissue  string // POST: send a new link to the address on record
	Verify   string // POST: start to confirm who I am
	NewCode  string // POST: send a new code
	Other    string // POST: use the other channel on record
	InPerson string // POST: sign in person instead
	Delegate string // GET: ask that someone else signs
	Retry    string // GET: try the same again
	Copy     string // GET: the signed copy
	Proof    string // GET: the certificate of completion
}

func (r Remedies) paths() []string {
	return []string{r.Reissue, r.Verify, r.NewCode, r.Other, r.InPerson, r.Delegate, r.Retry, r.Copy, r.Proof}
}

// primary is the remedy for a failure's next step, with its own label; zero when this signer cannot take it.
func (r Remedies) primary(next, label string) action {
	switch next {
	case "reissue":
		return leading(post(label, r.Reissue, "mail"))
	case "verify":
		return leading(post(label, r.Verify, "shield"))
	case "new-code":
		return leading(post(label, r.NewCode, "mail"))
	case "retry", "wait", "consent", "fix-fields":
		return leading(get(label, r.Retry, "refresh"))
	case "none":
		return leading(get(label, r.Copy, "download"))
	}
	return action{} // check-address, ask-sender and what platforms do: help is the way
}

// leading is a if it leads somewhere.
func leading(a action) action {
	if a.Target == "" {
		return action{}
	}
	return a
}

// others are all remedies but the primary one, in the order of their use to most people.
func (r Remedies) others(t tongue, primary action) ([]action, error) {
	var kept []action
	for _, o := range []struct {
		id string
		action
	}{
		{"remedy.reissue", post("", r.Reissue, "mail")},
		{"remedy.verify", post("", r.Verify, "shield")},
		{"remedy.newcode", post("", r.NewCode, "mail")},
		{"remedy.copy", get("", r.Copy, "download")},
		{"remedy.proof", get("", r.Proof, "seal")},
		{"remedy.other", post("", r.Other, "phone")},
		{"remedy.delegate", get("", r.Delegate, "people")},
		{"remedy.inperson", post("", r.InPerson, "people")},
		{"remedy.retry", get("", r.Retry, "refresh")},
	} {
		if o.Target == "" || o.Target == primary.Target {
			continue
		}
		label, err := t.say(o.id)
		if err != nil {
			return nil, err
		}
		o.Label = label
		kept = append(kept, o.action)
	}
	return kept, nil
}
