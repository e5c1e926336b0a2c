package audit

import (
	"strings"

	"golang.org/x/text/language"

	"countersign.dev/services/audit/rules"
)

// spoken are the languages of the certificate's timeline, the default first.
var spoken = language.NewMatcher([]language.Tag{language.English, language.German})

// phrases say in plain words what a leaf of each kind means, in the order of spoken. What is not here is in the log but not on the
// certificate: it matters to machines.
var phrases = map[string][2]string{
	"cs.request.created":             {"The request was accepted.", "Die Anfrage wurde angenommen."},
	"cs.request.progressed":          {"A signer finished; the others go on.", "Eine Person ist fertig; die anderen machen weiter."},
	"cs.request.completed":           {"Everybody has signed.", "Alle haben unterschrieben."},
	"cs.request.declined":            {"The request ended because a signer declined.", "Die Anfrage endete, weil eine Person ablehnte."},
	"cs.request.cancelled":           {"The sender cancelled the request.", "Der Absender hat die Anfrage zurückgezogen."},
	"cs.request.amended":             {"The sender changed the request.", "Der Absender hat die Anfrage geändert."},
	"cs.request.expired":             {"The sender's deadline passed.", "Die Frist des Absenders ist abgelaufen."},
	"cs.link.issued":                 {"A signing link was issued.", "Ein Link zum Unterschreiben wurde ausgestellt."},
	"cs.link.redeemed":               {"The link was opened.", "Der Link wurde geöffnet."},
	"cs.link.denied":                 {"A link was refused.", "Ein Link wurde abgewiesen."},
	"cs.link.soft_expired":           {"The link expired.", "Der Link ist abgelaufen."},
	"cs.link.reprofiled":             {"The sender changed how long the link lives.", "Der Absender hat geändert, wie lange der Link gilt."},
	"cs.link.reissued":               {"A new link took the place of the one before.", "Ein neuer Link hat den bisherigen ersetzt."},
	"cs.link.rerouted":               {"An alternate took the signer's place.", "Eine Vertretung ist an die Stelle getreten."},
	"cs.link.revoked":                {"The link was withdrawn.", "Der Link wurde zurückgezogen."},
	"cs.session.resumed":             {"The signer went on in another browser, after verification.", "Nach erneuter Prüfung ging es in einem anderen Browser weiter."},
	"cs.delivery.accepted":           {"A message was handed to the mail server.", "Eine Nachricht wurde dem Mailserver übergeben."},
	"cs.delivery.deferred":           {"A message could not be handed over yet; it is tried again.", "Eine Nachricht konnte noch nicht übergeben werden; sie wird erneut versucht."},
	"cs.delivery.bounced":            {"A message was refused.", "Eine Nachricht wurde abgewiesen."},
	"cs.delivery.failed":             {"A message could not be delivered.", "Eine Nachricht konnte nicht zugestellt werden."},
	"cs.identity.challenged":         {"A one-time code was asked for.", "Ein Einmalcode wurde angefordert."},
	"cs.identity.failed":             {"A wrong code was entered.", "Ein falscher Code wurde eingegeben."},
	"cs.identity.verified":           {"The signer's mailbox was confirmed.", "Das Postfach wurde bestätigt."},
	"cs.document.rendered":           {"The document was shown.", "Das Dokument wurde gezeigt."},
	"cs.consent.given":               {"Consent to sign electronically was given.", "Der elektronischen Unterschrift wurde zugestimmt."},
	"cs.signature.applied":           {"The document was signed.", "Das Dokument wurde unterschrieben."},
	"cs.signature.declined":          {"The signer declined.", "Die Unterschrift wurde abgelehnt."},
	"cs.reminder.due":                {"A reminder was sent.", "Eine Erinnerung wurde gesendet."},
	"cs.escalation.triggered":        {"An escalation began.", "Eine Eskalation begann."},
	"cs.escalation.manager_notified": {"The manager was told.", "Die Führungskraft wurde informiert."},
	"cs.escalation.alternate_routed": {"An alternate was named.", "Eine Vertretung wurde bestimmt."},
}

// wordsFor returns what a leaf means in a language, and whether the certificate shows it.
func wordsFor(l rules.Leaf, locale string) (string, bool) {
	phrase, shown := phrases[l.Type]
	_, i := language.MatchStrings(spoken, locale)
	return phrase[i], shown
}

// methods say in plain words how somebody was verified, by the log's name of the method, in the order of spoken.
var methods = map[string][2]string{
	"email:code": {"code by email to the signer's mailbox", "Code per E-Mail an das Postfach der Person"},
}

// methodWords returns the words of the methods of one verification. One without words is left out: its level says enough.
func methodWords(names []string, locale string) string {
	_, i := language.MatchStrings(spoken, locale)
	var words []string
	for _, name := range names {
		if w := methods[name][i]; w != "" {
			words = append(words, w)
		}
	}
	return strings.Join(words, ", ")
}
