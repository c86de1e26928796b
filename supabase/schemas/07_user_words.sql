-- What users read, in each language.
-- Written by `npm run schema` from shared/governance/rules/user-words.ts: edit there.

create function governance.user_languages() returns text[]
  language sql immutable parallel safe set search_path = '' as $$
  select '{en,de}'::text[]
$$;
comment on function governance.user_languages() is 'Languages in which users are written to.';

create function governance.user_words_de(p_word text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select case p_word
    when 'language.name' then 'Deutsch'
    when 'format.locale' then 'de-DE'
    when 'format.separator' then '.'
    when 'format.decimal' then ','
    when 'format.months' then 'Januar,Februar,März,April,Mai,Juni,Juli,August,September,Oktober,November,Dezember'
    when 'format.day' then '{day}. {month} {year}'
    when 'format.week' then 'Woche ab {day}'
    when 'format.month' then '{month} {year}'
    when 'format.moment' then '{day}, {time} Uhr'
    when 'reason.insufficient_tokens' then 'Dafür reichen Ihre Tokens nicht mehr.'
    when 'reason.daily_limit' then 'Sie haben das Limit für heute erreicht. Morgen beginnt es von vorn.'
    when 'reason.monthly_limit' then 'Sie haben das Limit für diesen Monat erreicht.'
    when 'reason.budget_exhausted' then 'Das Budget dafür ist aufgebraucht.'
    when 'reason.user_blocked' then 'Ihr Zugang ist angehalten. Bitte wenden Sie sich an den Support.'
    when 'reason.spam_identical' then
      'Sie haben dieselbe Nachricht viele Male gesendet. Bitte warten Sie, bevor Sie sie erneut '
      'senden.'
    when 'reason.bot_behavior' then 'Sie senden Nachrichten zu schnell. Bitte lassen Sie sich etwas Zeit.'
    when 'reason.token_hogging' then 'Sie haben heute sehr viele Nachrichten gesendet. Bitte kommen Sie morgen wieder.'
    when 'reason.rate_limited' then 'Zu viele Anfragen. Bitte warten Sie einen Moment.'
    when 'reason.off_topic' then 'Dabei kann ich hier nicht helfen.'
    when 'reason.other' then 'Diese Anfrage war nicht erlaubt.'
    when 'unavailable' then 'Der Dienst kann gerade nicht antworten. Bitte versuchen Sie es noch einmal.'
    when 'next.resolved' then 'Das ist behoben: Bitte versuchen Sie es noch einmal.'
    when 'next.works_again' then 'Ab {at} geht es wieder.'
    when 'next.needed' then 'Nötig waren {need} Tokens, vorhanden waren {have}.'
    when 'next.buy' then 'Hier können Sie Tokens kaufen: {url}'
    when 'next.upgrade' then 'Der Tarif {plan} bietet Ihnen mehr.'
    when 'next.upgrade_at' then 'Der Tarif {plan} bietet Ihnen mehr: {url}'
    when 'next.plans' then 'Hier können Sie einen Tarif wählen: {url}'
    when 'next.contact' then 'So erreichen Sie uns: {url}'
    when 'next.ask_us' then 'Falls das nicht stimmen kann, antworten Sie bitte mit dieser Nummer: {reference}.'
    when 'warning.daily_limit' then '{percent} % des Tageslimits sind verbraucht.'
    when 'warning.monthly_limit' then '{percent} % des Monatslimits sind verbraucht.'
    when 'warning.usage' then 'Sie haben {percent} % Ihrer Tokens verbraucht.'
    when 'checkout.plan_not_allowed' then 'In Ihrem Tarif kann dieses Paket nicht gekauft werden.'
    when 'checkout.user_blocked' then 'Ihr Konto ist gesperrt. Bitte wenden Sie sich an den Support.'
    when 'checkout.cooldown' then 'Sie haben gerade einen Kauf begonnen. Bitte warten Sie einen Moment.'
    when 'checkout.too_many_open_checkouts' then
      'Sie haben mehrere Käufe offen. Schließen Sie einen davon ab, oder versuchen Sie es später.'
    when 'alert.user_budget' then 'Sie haben schon {value} verbraucht ({period}).'
    when 'alert.usage_spike' then 'Sie haben in einer Stunde {value} Tokens verbraucht; üblich sind bei Ihnen {usual}.'
    when 'alert.low_balance' then 'Sie haben noch {value} Tokens.'
    when 'alert.high_usage' then 'Eine Ihrer Anfragen hat {value} Tokens verbraucht.'
    when 'alert.negative_balance' then
      'Ihre letzte Anfrage hat {value} Tokens mehr verbraucht, als Sie hatten. Ihre nächsten '
      'Tokens gleichen das zuerst aus.'
    when 'alert.daily_limit' then 'Sie haben {threshold} % Ihrer Tokens für heute verbraucht.'
    when 'alert.monthly_limit' then 'Sie haben {threshold} % Ihrer Tokens für diesen Monat verbraucht.'
    when 'alert.allowance' then 'Sie haben {threshold} % Ihrer Tokens für diesen Monat verbraucht.'
    when 'amount.tokens' then '{value} Tokens'
    when 'message.purchase' then 'Ihr Kauf ist bestätigt: {tokens} Tokens für {money}.'
    when 'message.renewal' then 'Ihre Zahlung für den Tarif {plan} ist bestätigt: {tokens} Tokens für {money}.'
    when 'message.subscription_expire' then 'Ihr Abonnement {plan} ist beendet, und damit sind seine Tokens verfallen.'
    when 'message.subscription_convert' then
      'Ihr Abonnement {plan} ist beendet. Die {tokens} Tokens, die noch übrig waren, behalten '
      'Sie.'
    when 'message.subscription_keep' then
      'Ihr Abonnement {plan} ist beendet. Seine Tokens bleiben Ihnen, bis sie verfallen.'
    when 'message.refund' then '{tokens} Tokens wurden zurückgenommen, weil ihre Zahlung erstattet wurde.'
    when 'message.dispute' then
      '{tokens} Tokens wurden zurückgenommen, weil ihre Zahlung angefochten wurde und die '
      'Anfechtung Erfolg hatte.'
    when 'message.support' then '{tokens} Tokens wurden von unserem Support zurückgenommen.'
    when 'mail.hello' then 'Guten Tag {name},'
    when 'mail.hello_nobody' then 'Guten Tag,'
    when 'mail.at' then 'Das war am {at} ({zone}).'
    when 'mail.why' then 'Sie erhalten diese E-Mail, weil E-Mails über {topic} für Ihr Konto eingeschaltet sind.'
    when 'mail.turn_off_at' then 'Ausschalten: {url}'
    when 'topic.limits' then 'Ihre Limits'
    when 'topic.low_balance' then 'ein niedriges Guthaben'
    when 'topic.purchases' then 'Käufe'
    when 'topic.subscription' then 'Ihr Abonnement'
    when 'topic.tokens_taken' then 'zurückgenommene Tokens'
    when 'off.question' then 'Keine E-Mails mehr über {topic}?'
    when 'off.button' then 'Ausschalten'
    when 'off.done' then 'E-Mails über {topic} sind jetzt ausgeschaltet.'
    when 'off.wrong' then 'Dieser Link ist nicht gültig. Bitte verwenden Sie den aus der neuesten E-Mail.'
  end
$$;
comment on function governance.user_words_de(text) is 'What user_word answers for de.';

create function governance.user_words_en(p_word text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select case p_word
    when 'language.name' then 'English'
    when 'format.locale' then 'en-GB'
    when 'format.separator' then ','
    when 'format.decimal' then '.'
    when 'format.months' then 'January,February,March,April,May,June,July,August,September,October,November,December'
    when 'format.day' then '{day} {month} {year}'
    when 'format.week' then 'the week from {day}'
    when 'format.month' then '{month} {year}'
    when 'format.moment' then '{day}, {time}'
    when 'reason.insufficient_tokens' then 'You do not have enough tokens left for this.'
    when 'reason.daily_limit' then 'You have reached today''s limit. It resets tomorrow.'
    when 'reason.monthly_limit' then 'You have reached this month''s limit.'
    when 'reason.budget_exhausted' then 'The budget for this is used up.'
    when 'reason.user_blocked' then 'Your access is paused. Please contact support.'
    when 'reason.spam_identical' then 'You have sent the same message many times. Please wait before you send it again.'
    when 'reason.bot_behavior' then 'You are sending messages too fast. Please slow down.'
    when 'reason.token_hogging' then 'You have sent very many messages today. Please come back tomorrow.'
    when 'reason.rate_limited' then 'Too many requests. Please wait a moment.'
    when 'reason.off_topic' then 'I cannot help with that here.'
    when 'reason.other' then 'This request was not allowed.'
    when 'unavailable' then 'The service cannot answer now. Please try again.'
    when 'next.resolved' then 'This is resolved: please try again.'
    when 'next.works_again' then 'It will work again from {at}.'
    when 'next.needed' then 'It needed {need} tokens; you had {have}.'
    when 'next.buy' then 'You can buy tokens here: {url}'
    when 'next.upgrade' then 'The plan {plan} gives you more.'
    when 'next.upgrade_at' then 'The plan {plan} gives you more: {url}'
    when 'next.plans' then 'You can choose a plan here: {url}'
    when 'next.contact' then 'You can reach us here: {url}'
    when 'next.ask_us' then 'If this looks wrong, answer with this number: {reference}.'
    when 'warning.daily_limit' then '{percent}% of the daily limit is used.'
    when 'warning.monthly_limit' then '{percent}% of the monthly limit is used.'
    when 'warning.usage' then 'You have used {percent}% of your tokens.'
    when 'checkout.plan_not_allowed' then 'Your plan does not include buying this pack.'
    when 'checkout.user_blocked' then 'Your account is blocked. Please contact support.'
    when 'checkout.cooldown' then 'You have just begun a purchase. Please wait a moment.'
    when 'checkout.too_many_open_checkouts' then
      'You have several purchases open. Finish one of them, or try again later.'
    when 'alert.user_budget' then 'You have used {value} ({period}).'
    when 'alert.usage_spike' then 'You used {value} tokens within an hour; {usual} is usual for you.'
    when 'alert.low_balance' then 'You have {value} tokens left.'
    when 'alert.high_usage' then 'One of your requests used {value} tokens.'
    when 'alert.negative_balance' then
      'Your last request used {value} tokens more than you had. The next tokens you get pay for '
      'them first.'
    when 'alert.daily_limit' then 'You have used {threshold} % of today''s tokens.'
    when 'alert.monthly_limit' then 'You have used {threshold} % of this month''s tokens.'
    when 'alert.allowance' then 'You have used {threshold} % of this month''s tokens.'
    when 'amount.tokens' then '{value} tokens'
    when 'message.purchase' then 'Your purchase is confirmed: {tokens} tokens for {money}.'
    when 'message.renewal' then 'Your payment for the plan {plan} is confirmed: {tokens} tokens for {money}.'
    when 'message.subscription_expire' then 'Your subscription {plan} has ended, and its tokens with it.'
    when 'message.subscription_convert' then
      'Your subscription {plan} has ended. You keep the {tokens} tokens that were left.'
    when 'message.subscription_keep' then 'Your subscription {plan} has ended. Its tokens stay until they expire.'
    when 'message.refund' then '{tokens} tokens were taken back, because their payment was refunded.'
    when 'message.dispute' then
      '{tokens} tokens were taken back, because their payment was disputed and the dispute was '
      'lost.'
    when 'message.support' then '{tokens} tokens were taken back by our support.'
    when 'mail.hello' then 'Hello {name},'
    when 'mail.hello_nobody' then 'Hello,'
    when 'mail.at' then 'This happened on {at} ({zone}).'
    when 'mail.why' then 'You get this because mails about {topic} are on for your account.'
    when 'mail.turn_off_at' then 'Turn them off: {url}'
    when 'topic.limits' then 'your limits'
    when 'topic.low_balance' then 'a low balance'
    when 'topic.purchases' then 'purchases'
    when 'topic.subscription' then 'your subscription'
    when 'topic.tokens_taken' then 'tokens that were taken back'
    when 'off.question' then 'No more mails about {topic}?'
    when 'off.button' then 'Turn them off'
    when 'off.done' then 'Mails about {topic} are off now.'
    when 'off.wrong' then 'This link is not valid. Please use the one in the newest mail.'
  end
$$;
comment on function governance.user_words_en(text) is 'What user_word answers for en.';

create function governance.user_word(p_word text, p_language text) returns text
  language sql immutable parallel safe set search_path = '' as $$
  select case p_language
    when 'de' then governance.user_words_de(p_word)
    else governance.user_words_en(p_word)
  end
$$;
comment on function governance.user_word(text, text) is
  'A text of the catalogue, in English where the language has none; null for a word that is not in it. {name} stands '
  'for a value: governance.say puts it in.';
