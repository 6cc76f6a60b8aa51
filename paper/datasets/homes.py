"""Fourteen fictional homes: the rooms, floors and devices that fill the slots of commands, in three languages.

Home k is the same home in every language (row k of one table is a translation of row k of the others), and no value
occurs in two homes. Splitting by home therefore keeps every room and device out of the other splits, across languages
too: a model trained on three languages sees none of the test rooms in any of them. The tables were written for this
project; Persian values use the zero-width non-joiner where the written language does.
"""

# ruff: noqa: E501
from __future__ import annotations

FIELDS = ("area", "floor", "light", "cover", "media_player", "switch", "timer")

_EN = """
kitchen | ground | chandelier | front blind | television | coffee maker | pizza
living room | first | floor lamp | left curtain | soundbar | heater | tea
bedroom | second | bedside lamp | back shutter | speaker | heated mattress | nap
bathroom | upper | mirror light | skylight | clock radio | towel warmer | bath
office | third | desk lamp | roller shade | stereo | printer | meeting
garage | basement | spotlight | garage door | subwoofer | charger | laundry
dining room | main | wall light | right curtain | projector | air conditioner | roast
hallway | lower | ceiling light | gate | record player | doorbell | bread
playroom | top | night light | heavy curtain | home theater | aquarium | homework
laundry room | middle | neon tube | sliding door | bluetooth speaker | washing machine | drying
workshop | cellar | halogen lamp | hatch | amplifier | compressor | paint
library | fourth | reading lamp | venetian blind | smart display | dehumidifier | reading
veranda | attic | lantern | awning | music player | fountain | barbecue
pantry | fifth | LED strip | sun shade | set-top box | freezer | eggs
"""

_FR = """
la cuisine | le rez-de-chaussée | le lustre | le store avant | la télévision | la cafetière | la pizza
le salon | le premier étage | le lampadaire | le rideau gauche | la barre de son | le radiateur | le thé
la chambre | le deuxième étage | la lampe de chevet | le volet arrière | l'enceinte | le matelas chauffant | la sieste
la salle de bain | l'étage supérieur | l'applique du miroir | la lucarne | le radio-réveil | le sèche-serviettes | le bain
le bureau | le troisième étage | la lampe articulée | le store enrouleur | la chaîne stéréo | l'imprimante | la réunion
le garage | le sous-sol | le spot | la porte du garage | le caisson de basses | le chargeur | la lessive
la salle à manger | l'étage principal | l'applique murale | le rideau droit | le projecteur | le climatiseur | le rôti
le couloir | l'étage inférieur | le plafonnier | le portail | le tourne-disque | la sonnette | le pain
la salle de jeux | le dernier étage | la veilleuse | le rideau épais | le home cinéma | l'aquarium | les devoirs
la buanderie | l'entresol | le tube au néon | la porte coulissante | l'enceinte Bluetooth | le lave-linge | le séchage
l'atelier | la cave | l'halogène | la trappe | l'amplificateur | le compresseur | la peinture
la bibliothèque | le quatrième étage | la liseuse | le store vénitien | l'écran connecté | le déshumidificateur | la lecture
la véranda | le grenier | la lanterne | l'auvent | le baladeur | la fontaine | le barbecue
le cellier | le cinquième étage | le ruban LED | le pare-soleil | le décodeur | le congélateur | les œufs
"""

# "~" stands for the zero-width non-joiner, which most editors do not show.
_FA = """
آشپزخانه | طبقه~ی همکف | لوستر | کرکره~ی جلویی | تلویزیون | قهوه~ساز | پیتزا
پذیرایی | طبقه~ی اول | آباژور | پرده~ی چپ | ساندبار | بخاری | چای
اتاق خواب | طبقه~ی دوم | چراغ خواب | کرکره~ی پشتی | بلندگو | تشک برقی | چرت
حمام | طبقه~ی بالا | چراغ آینه | نورگیر | رادیو | حوله~خشک~کن | دوش
اتاق کار | طبقه~ی سوم | چراغ مطالعه | پرده~ی رولی | ضبط صوت | چاپگر | جلسه
پارکینگ | زیرزمین | نورافکن | درِ پارکینگ | ساب~ووفر | شارژر | لباس~شویی
ناهارخوری | طبقه~ی اصلی | چراغ دیواری | پرده~ی راست | پروژکتور | کولر گازی | کباب
راهرو | طبقه~ی پایین | چراغ سقفی | دروازه | گرامافون | زنگ در | نان
اتاق بازی | طبقه~ی آخر | شب~خواب | پرده~ی ضخیم | سینمای خانگی | آکواریوم | تکلیف
رخت~شوی~خانه | نیم~طبقه | مهتابی | درِ کشویی | اسپیکر بلوتوثی | ماشین لباس~شویی | خشک~کن
کارگاه | انبار پایین | لامپ هالوژن | دریچه | آمپلی~فایر | کمپرسور | رنگ
کتابخانه | طبقه~ی چهارم | چراغ رومیزی | کرکره~ی افقی | نمایشگر هوشمند | رطوبت~گیر | مطالعه
ایوان | اتاق زیرشیروانی | فانوس | سایبان | پخش~کننده~ی موسیقی | آب~نما | باربیکیو
انباری | طبقه~ی پنجم | نوار ال~ای~دی | آفتاب~گیر | گیرنده~ی دیجیتال | فریزر | تخم~مرغ
"""

COMMANDS = {
    "en": ("turn off the {light}", "open the {cover}", "play music on the {media_player}", "start the {switch}"),
    "fr": ("éteins {light}", "ouvre {cover}", "mets de la musique sur {media_player}", "allume {switch}"),
    "fa": (),
}


def _table(text: str) -> list[dict[str, str]]:
    rows = [[cell.strip() for cell in line.split("|")] for line in text.replace("~", "\u200c").strip().splitlines()]
    return [dict(zip(FIELDS, row, strict=True)) for row in rows]


HOMES = {"en": _table(_EN), "fr": _table(_FR), "fa": _table(_FA)}
N_HOMES = len(HOMES["en"])
_CITIES = """
Berlin Lisbon Nairobi Osaka Lima Oslo Tunis Toronto Delhi Warsaw Athens Seoul Quito Dublin
Berlin Lisbonne Nairobi Osaka Lima Oslo Tunis Toronto Delhi Varsovie Athènes Séoul Quito Dublin
برلین لیسبون نایروبی اوساکا لیما اسلو تونس تورنتو دهلی ورشو آتن سئول کیتو دوبلین
"""
CITIES = dict(zip(("en", "fr", "fa"), (line.split() for line in _CITIES.strip().splitlines()), strict=True))
